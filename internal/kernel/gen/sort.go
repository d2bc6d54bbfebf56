package main

import (
	"maps"
	"slices"
)

// sortedKeys makes the output the same each time.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
