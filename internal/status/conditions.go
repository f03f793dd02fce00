package status

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Severity orders conditions by how much they hurt.
type Severity string

// The severities.
const (
	Warning Severity = "warning" // redundancy or comfort is reduced
	Failure Severity = "failure" // something that the document asks for does not work
)

// Condition is something that is wrong, named so that it can be looked up,
// and said so that it can be repaired.
type Condition struct {
	Name     string    `json:"name"`    // stable: "port-no-carrier"
	Subject  string    `json:"subject"` // what it is about: a port, a segment, a prefix
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"` // what is wrong and what would help, one line
	Since    time.Time `json:"since"`
}

// Board holds the conditions that stand. It is safe for concurrent use, and
// its zero value is empty and ready.
type Board struct {
	mu         sync.Mutex
	conditions map[[2]string]Condition
}

// Replace sets all conditions whose name is among names to exactly those in
// now; conditions of other names stay. A condition that stood already keeps
// its Since. Owners report level-triggered: the whole truth, as often as they like.
func (b *Board) Replace(names []string, now []Condition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.conditions
	b.conditions = make(map[[2]string]Condition, len(old))
	for key, c := range old {
		if !slices.Contains(names, c.Name) {
			b.conditions[key] = c
		}
	}
	for _, c := range now {
		key := [2]string{c.Name, c.Subject}
		if before, ok := old[key]; ok {
			c.Since = before.Since
		} else if c.Since.IsZero() {
			c.Since = time.Now()
		}
		b.conditions[key] = c
	}
}

// Conditions returns what stands, the worst first, then by subject and name.
func (b *Board) Conditions() []Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Condition, 0, len(b.conditions))
	for _, c := range b.conditions {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, c Condition) int {
		if a.Severity != c.Severity {
			return strings.Compare(string(a.Severity), string(c.Severity))
		}
		if d := strings.Compare(a.Subject, c.Subject); d != 0 {
			return d
		}
		return strings.Compare(a.Name, c.Name)
	})
	return all
}
