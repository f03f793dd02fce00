package versus

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result is one row for all contenders.
type Result struct {
	Event    string    `json:"event"`
	Title    string    `json:"title"`
	Unit     string    `json:"unit"`
	Measured time.Time `json:"measured"`
	Goal     string    `json:"goal"`
	// Verdict is "met", "missed", or empty where there is no goal, or nobody to
	// compare with.
	Verdict string   `json:"verdict"`
	Of      []Figure `json:"of"` // the contenders; frond comes first
}

// Figure is what one contender came to.
type Figure struct {
	Contender string   `json:"contender"`
	Median    Sample   `json:"median"`
	Min       Sample   `json:"min"`
	Max       Sample   `json:"max"`
	Samples   []Sample `json:"samples"` // in their order
	// Problem is why there are not as many samples as there should be.
	Problem string `json:"problem,omitempty"`
}

func summarize(contender string, samples []Sample, problem error) Figure {
	f := Figure{Contender: contender, Samples: []Sample{}}
	if problem != nil {
		f.Problem = problem.Error()
	}
	if len(samples) == 0 {
		return f
	}
	sorted := slices.SortedFunc(slices.Values(samples), compareSamples)
	f.Samples, f.Median, f.Min, f.Max = samples, median(sorted), sorted[0], sorted[len(sorted)-1]
	return f
}

// measured tells whether there is a figure at all.
func (f Figure) measured() bool { return len(f.Samples) > 0 }

// median is the mean of the two in the middle where there are two, and neither
// was given up.
func median(sorted []Sample) Sample {
	low, high := sorted[(len(sorted)-1)/2], sorted[len(sorted)/2]
	if high.Exceeded {
		return high
	}
	return Sample{Value: (low.Value + high.Value) / 2}
}

// compareSamples orders them; one that was given up is beyond all others.
func compareSamples(a, b Sample) int {
	switch {
	case a.Exceeded != b.Exceeded && a.Exceeded:
		return 1
	case a.Exceeded != b.Exceeded, a.Value < b.Value:
		return -1
	case a.Value > b.Value:
		return 1
	}
	return 0
}

// Goal is what frond's median should be.
type Goal struct {
	AtMost  float64 // in the row's unit, if Set
	Always  bool    // AtMost holds for the maximum too
	Set     bool
	AtLeast float64 // instead of AtMost: of the minimum
	Ratio   float64 // at most this part of the best of the others; 0: no matter
	Share   float64 // at least this part of the best of the others, where more is better
	Beside  string  // instead of the best, the other of that name
}

func (g Goal) String() string {
	var parts []string
	if g.Set {
		text := "≤ " + number(g.AtMost)
		if g.Always {
			text += ", always"
		}
		parts = append(parts, text)
	}
	if g.AtLeast > 0 {
		parts = append(parts, "≥ "+number(g.AtLeast))
	}
	if g.Ratio > 0 {
		parts = append(parts, "≤ "+number(g.Ratio)+" × "+cmp.Or(g.Beside, "the best other"))
	}
	if g.Share > 0 {
		parts = append(parts, "≥ "+number(g.Share)+" × the best other")
	}
	return strings.Join(parts, ", ")
}

// judge compares the first contender's figure with the goal.
func (r *Result) judge(g Goal) {
	r.Goal = g.String()
	others := slices.DeleteFunc(slices.Clone(r.Of[1:]), func(f Figure) bool {
		return !f.measured() || g.Beside != "" && f.Contender != g.Beside
	})
	if r.Goal == "" || g.Ratio+g.Share > 0 && len(others) == 0 && !g.Set {
		return
	}
	own := r.Of[0]
	met := own.measured() && !own.Median.Exceeded
	if g.Set {
		met = met && own.Median.Value <= g.AtMost && (!g.Always || !own.Max.Exceeded && own.Max.Value <= g.AtMost)
	}
	if g.AtLeast > 0 {
		met = met && own.Min.Value >= g.AtLeast
	}
	if g.Ratio > 0 && len(others) > 0 {
		best := slices.MinFunc(others, func(a, b Figure) int { return compareSamples(a.Median, b.Median) })
		met = met && own.Median.Value <= g.Ratio*best.Median.Value
	}
	if g.Share > 0 && len(others) > 0 {
		best := slices.MaxFunc(others, func(a, b Figure) int { return compareSamples(a.Median, b.Median) })
		met = met && own.Median.Value >= g.Share*best.Median.Value
	}
	r.Verdict = "missed"
	if met {
		r.Verdict = "met"
	}
}

func (s Sample) String() string {
	if s.Exceeded {
		return "> " + number(s.Value)
	}
	return number(s.Value)
}

func (f Figure) String() string {
	text := f.Median.String()
	switch {
	case !f.measured():
		return "failed"
	case f.Min != f.Max:
		text += fmt.Sprintf(" [%s–%s]", f.Min, f.Max)
	}
	if f.Problem != "" {
		text += ", then failed"
	}
	return text
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Markdown is the results as a table: median [minimum–maximum] of each
// contender, and how often it was measured. Below are the reasons of what failed.
func Markdown(results []Result) string {
	var names []string
	for _, r := range results {
		for _, f := range r.Of {
			if !slices.Contains(names, f.Contender) {
				names = append(names, f.Contender)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| what | unit | " + strings.Join(names, " | ") + " | times | goal | |\n|---|---|" + strings.Repeat("---|", len(names)) + "---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s |", r.Title, r.Unit)
		times := 0
		for _, name := range names {
			cell := ""
			if i := slices.IndexFunc(r.Of, func(f Figure) bool { return f.Contender == name }); i >= 0 {
				cell, times = " "+r.Of[i].String(), max(times, len(r.Of[i].Samples))
			}
			b.WriteString(cell + " |")
		}
		fmt.Fprintf(&b, " %d | %s | %s |\n", times, r.Goal, r.Verdict)
	}
	if failures := failures(results); len(failures) > 0 {
		b.WriteString("\nFailed:\n\n- " + strings.Join(failures, "\n- ") + "\n")
	}
	return b.String()
}

// failures says what failed and why, each once.
func failures(results []Result) (texts []string) {
	for _, r := range results {
		for _, f := range r.Of {
			text := fmt.Sprintf("%s of %s: %s", r.Event, f.Contender, strings.Join(strings.Fields(f.Problem), " "))
			if f.Problem != "" && !slices.Contains(texts, text) {
				texts = append(texts, text)
			}
		}
	}
	return texts
}

// Failure is why the first contender could not be measured, if so. That others
// could not is theirs.
func Failure(results []Result) error {
	var problems []error
	for _, r := range results {
		own := r.Of[0]
		if own.Problem == "" && own.measured() {
			continue
		}
		problems = append(problems, fmt.Errorf("%s of %s: %s", r.Title, own.Contender, cmp.Or(own.Problem, "not measured")))
	}
	return errors.Join(problems...)
}

// Merge puts results in the place of older ones of the same row. The order is
// that of Events.
func Merge(older, newer []Result) []Result {
	place := make(map[[2]string]int)
	for _, e := range Events() {
		for _, row := range e.Rows {
			place[[2]string{e.Name, row.Title}] = len(place)
		}
	}
	merged := slices.Clone(newer)
	for _, r := range older {
		_, known := place[[2]string{r.Event, r.Title}]
		if known && !slices.ContainsFunc(newer, func(n Result) bool { return n.Event == r.Event && n.Title == r.Title }) {
			merged = append(merged, r)
		}
	}
	slices.SortStableFunc(merged, func(a, b Result) int {
		return place[[2]string{a.Event, a.Title}] - place[[2]string{b.Event, b.Title}]
	})
	return merged
}
