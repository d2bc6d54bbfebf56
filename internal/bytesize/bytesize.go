// Package bytesize reads and writes numbers of bytes as people do.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Format is n in the largest unit of 1024 that it fills.
func Format(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// Parse reads a size: 2GiB, 512MiB, 1.5G, 3000000 (bytes). G, GB and GiB all are
// powers of 1024. ok is false for anything else, for what is not positive, for
// what does not fit, and for a number alone below a megabyte: its unit was
// forgotten.
func Parse(s string) (n int64, ok bool) {
	digits := strings.TrimRight(strings.TrimSpace(s), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := strings.ToLower(strings.TrimSpace(s)[len(digits):])
	shift, known := map[string]int{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20,
		"g": 30, "gb": 30, "gib": 30, "t": 40, "tb": 40, "tib": 40, "e": 60, "eb": 60, "eib": 60, "p": 50, "pb": 50, "pib": 50}[unit]
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	v = math.Ldexp(v, shift)
	least := 1.0
	if unit == "" {
		least = 1 << 20
	}
	if !known || err != nil || !(v >= least && v < math.MaxInt64) {
		return 0, false
	}
	return int64(v), true
}
