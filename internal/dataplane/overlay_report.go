package dataplane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// OverlayReport is how far the kernel's segments are as desired.
type OverlayReport struct {
	Segments []SegmentReport
	Complete bool
	// Problems are what the kernel refused when it was last tried, and
	// devices of others that are in the way.
	Problems []Problem
}

// SegmentReport is how far one segment is as desired.
type SegmentReport struct {
	Name                   string
	VNI                    uint32
	Ready                  bool // its devices are there
	MACs, Neighbors, Flood int  // entries desired
	Pending                int  // entries that differ from what is desired
}

// Report returns how far the kernel is as desired.
func (o *Overlay) Report() OverlayReport {
	o.mu.RLock()
	defer o.mu.RUnlock()
	report := o.report
	report.Segments = slices.Clone(report.Segments)
	report.Problems = slices.Clone(report.Problems)
	return report
}

// noteReport renews the report, and logs problems that are new or over.
func (o *Overlay) noteReport() {
	report := OverlayReport{Complete: o.intent.complete}
	for _, segment := range o.intent.segments {
		entries := o.intent.of(segment.VNI)
		report.Segments = append(report.Segments, SegmentReport{
			Name:      segment.Name,
			VNI:       segment.VNI,
			Ready:     o.state.ready(segment),
			MACs:      len(entries.macs.want),
			Neighbors: len(entries.neighbors.want),
			Flood:     len(entries.flood.want),
			Pending:   len(entries.macs.dirty) + len(entries.neighbors.dirty) + len(entries.flood.dirty),
		})
	}
	before := o.Report().Problems
	report.Problems = overlayProblems(o.refused, before)
	o.mu.Lock()
	o.report = report
	o.mu.Unlock()
	named := func(problems []Problem, text string) bool {
		return slices.ContainsFunc(problems, func(p Problem) bool { return p.Text == text })
	}
	for _, p := range report.Problems {
		if !named(before, p.Text) {
			o.pause = resyncFirst
			o.nextLook = time.Now().Add(o.pause)
			o.log.Warn("a segment is not as it should be", "problem", p.Text, "count", p.Count)
		}
	}
	for _, p := range before {
		if !named(report.Problems, p.Text) {
			o.log.Info("a segment's problem is over", "problem", p.Text)
		}
	}
}

// overlayProblems turns refusals into problems. Entries are many and fail
// alike, everything else is a problem of its own.
func overlayProblems(refused map[OverlayOp]error, before []Problem) []Problem {
	problems := make(map[string]Problem)
	for op, err := range refused {
		text := fmt.Sprintf("%s: %v", cmp.Or(overlayKind(op), op.String()), err)
		problem, ok := problems[text]
		if !ok && len(problems) == maxProblems {
			continue
		}
		if !ok {
			problem = Problem{Text: text, Since: time.Now()}
		}
		problem.Count++
		problems[text] = problem
	}
	for _, old := range before {
		if problem, still := problems[old.Text]; still {
			problem.Since = old.Since
			problems[old.Text] = problem
		}
	}
	return slices.SortedFunc(maps.Values(problems), func(a, b Problem) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Text, b.Text))
	})
}
