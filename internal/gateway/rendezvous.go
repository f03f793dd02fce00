package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
)

// score is weighted rendezvous hashing: of all nodes, each segment prefers the
// one with the highest score. A node is preferred in proportion to its weight,
// and adding or removing one does not change how the others compare (Schindelhauer
// and Schomaker, "Weighted distributed hash tables", 2005: the logarithmic method).
func score(segment, node string, weight float64) float64 {
	if weight <= 0 {
		return 0
	}
	return -weight / math.Log(fraction(segment, node))
}

// fraction maps a pair of names to a number between 0 and 1, neither included:
// the same one on every machine and in every release.
func fraction(segment, node string) float64 {
	sum := sha256.Sum256([]byte(segment + "\x00" + node))
	const bits = 53 // of a float64's mantissa
	n := binary.BigEndian.Uint64(sum[:]) >> (64 - bits)
	return (float64(n) + 0.5) / (1 << bits)
}

// Prefer returns the node that a segment prefers, all weighing the same; empty
// if there are none.
func Prefer(segment string, nodes []string) string {
	if len(nodes) == 0 {
		return ""
	}
	return slices.MaxFunc(nodes, func(a, b string) int {
		return cmp.Or(cmp.Compare(score(segment, a, 1), score(segment, b, 1)), cmp.Compare(b, a))
	})
}
