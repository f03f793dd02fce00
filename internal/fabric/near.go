package fabric

import (
	"fmt"
	"slices"
	"strings"
)

// UnknownNodeError tells that a fabric has no node of that name.
type UnknownNodeError struct{ Fabric, Node, Hint string }

// Error says also which names would have been right.
func (e *UnknownNodeError) Error() string {
	return fmt.Sprintf("fabric %s has no node %s; %s", e.Fabric, show(e.Node), e.Hint)
}

// Find returns the node of that name, or an *UnknownNodeError that says which
// names are near it.
func (f *Fabric) Find(name string) (Node, error) {
	if n, ok := f.Node(name); ok {
		return n, nil
	}
	names := make([]string, len(f.Nodes))
	for i, n := range f.Nodes {
		names[i] = n.Name
	}
	return Node{}, &UnknownNodeError{Fabric: f.Name, Node: name, Hint: choice(name, names)}
}

// choice says which of the words are right: those near to the wrong one, or
// some of them all.
func choice(wrong string, words []string) string {
	if near := nearest(wrong, words); near != "" {
		return "did you mean " + near + "?"
	}
	const most = 12
	if len(words) > most {
		return fmt.Sprintf("there are %s and %d more", strings.Join(words[:most], ", "), len(words)-most)
	}
	if len(words) == 0 {
		return "there is none"
	}
	if len(words) == 1 {
		return "there is only " + words[0]
	}
	last := len(words) - 1
	return "there are " + strings.Join(words[:last], ", ") + " and " + words[last]
}

// nearest is the word that most likely was meant: the same in another case,
// the first label of a longer host name, or a few typing mistakes away.
func nearest(wrong string, words []string) string {
	wrong = strings.ToLower(wrong)
	if len(wrong) > 128 {
		return ""
	}
	label, _, _ := strings.Cut(wrong, ".")
	if slices.Contains(words, label) {
		return label
	}
	best, found := max(1, len(wrong)/3)+1, ""
	for _, word := range words {
		if len(word) > 128 {
			continue
		}
		if d := distance(wrong, strings.ToLower(word)); d < best {
			best, found = d, word
		}
	}
	return found
}

// distance counts insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
