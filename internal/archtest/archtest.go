// Package archtest keeps the directions of imports: its test reads what every
// package depends on and fails where an arrow points the wrong way.
package archtest
