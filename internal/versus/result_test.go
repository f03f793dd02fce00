package versus

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func samples(values ...float64) (s []Sample) {
	for _, v := range values {
		s = append(s, Sample{Value: v})
	}
	return s
}

var never = Sample{Value: 20, Exceeded: true}

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		samples []Sample
		want    string
	}{
		{samples(3, 1, 2), "2 [1–3]"},
		{samples(4, 1, 2, 3), "2.5 [1–4]"},
		{samples(7), "7"},
		{samples(0, 0, 0), "0"},
		{append(samples(30), never, never), "> 20 [30–> 20]"},
		{append(samples(2, 3), never), "3 [2–> 20]"},
		{append(samples(2), never), "> 20 [2–> 20]"},
		{samples(1234.56, 0.01234), "617 [0.0123–1235]"},
	} {
		if got := summarize("x", c.samples, nil).String(); got != c.want {
			t.Errorf("%v: %s, want %s", c.samples, got, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	figures := func(own []Sample, others ...[]Sample) []Figure {
		of := []Figure{summarize("frond", own, nil)}
		for _, o := range others {
			of = append(of, summarize("other", o, nil))
		}
		return of
	}
	for _, c := range []struct {
		name string
		goal Goal
		of   []Figure
		want string
	}{
		{"no goal", Goal{}, figures(samples(1), samples(2)), ""},
		{"nobody to compare with", Goal{Ratio: 1}, figures(samples(1)), ""},
		{"the best other counts", Goal{Ratio: 0.5}, figures(samples(2), samples(9), samples(3)), "missed"},
		{"a part of it", Goal{Ratio: 0.5}, figures(samples(2), samples(9), samples(4)), "met"},
		{"others that never came", Goal{Ratio: 0.5}, figures(samples(2), []Sample{never}), "met"},
		{"never", Goal{Ratio: 1}, figures([]Sample{never}, []Sample{never}), "missed"},
		{"at most, once more", Goal{Set: true, AtMost: 2}, figures(samples(1, 1, 9)), "met"},
		{"at most, always", Goal{Set: true, AtMost: 2, Always: true}, figures(samples(1, 1, 9)), "missed"},
		{"nothing", Goal{Set: true}, figures(samples(0, 0, 1)), "met"},
		{"both", Goal{Set: true, AtMost: 15, Ratio: 1}, figures(samples(10), samples(5)), "missed"},
		{"others that failed do not count", Goal{Ratio: 0.5}, figures(samples(2), nil, samples(3)), "missed"},
		{"as much as the best other", Goal{Share: 0.9}, figures(samples(9), samples(8), samples(10)), "met"},
		{"less than the best other", Goal{Share: 0.9}, figures(samples(8.9), samples(8), samples(10)), "missed"},
		{"one other alone", Goal{Ratio: 1, Beside: "other"}, append(figures(samples(2), samples(3)), summarize("better", samples(1), nil)), "met"},
		{"all others failed", Goal{Ratio: 0.5}, figures(samples(2), nil), ""},
		{"failed", Goal{Set: true, AtMost: 2}, figures(nil, samples(3)), "missed"},
		{"at least, always", Goal{AtLeast: 30}, figures(samples(50, 29, 50)), "missed"},
	} {
		r := Result{Of: c.of}
		if r.judge(c.goal); r.Verdict != c.want {
			t.Errorf("%s: %q, want %q", c.name, r.Verdict, c.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	results := []Result{
		{Event: "cut", Title: "outage", Unit: "ms", Of: []Figure{summarize("frond", samples(1, 2, 3), nil), summarize("FRR", append(samples(9), never), errors.New("cut:\n  gone"))}},
		{Title: "lost", Of: []Figure{summarize("frond", samples(0), nil)}},
	}
	results[0].judge(Goal{Set: true, AtMost: 15, Ratio: 0.3})
	const want = `| what | unit | frond | FRR | times | goal | |
|---|---|---|---|---|---|---|
| outage | ms | 2 [1–3] | > 20 [9–> 20], then failed | 3 | ≤ 15, ≤ 0.3 × the best other | met |
| lost |  | 0 | | 1 |  |  |

Failed:

- cut of FRR: cut: gone
`
	if diff := cmp.Diff(want, Markdown(results)); diff != "" {
		t.Error(diff)
	}
}

func TestFailure(t *testing.T) {
	row := func(own, other Figure) Result { return Result{Title: "outage", Of: []Figure{own, other}} }
	fine, failed := summarize("x", samples(1), nil), summarize("x", samples(1), errors.New("it ended"))
	for _, c := range []struct {
		name       string
		own, other Figure
		want       string
	}{
		{"both measured", fine, fine, ""},
		{"the other failed", fine, failed, ""},
		{"it failed", failed, fine, "outage of x: it ended"},
		{"never measured", summarize("x", nil, nil), fine, "outage of x: not measured"},
	} {
		err := Failure([]Result{row(c.own, c.other)})
		if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestMerge(t *testing.T) {
	events := Events()
	row := func(event, row int, unit string) Result {
		return Result{Event: events[event].Name, Title: events[event].Rows[row].Title, Unit: unit}
	}
	older := []Result{row(0, 0, "old"), row(1, 0, "old"), {Event: "forgotten"}}
	newer := []Result{row(2, 0, "new"), row(1, 0, "new")}
	want := []Result{row(0, 0, "old"), row(1, 0, "new"), row(2, 0, "new")}
	if diff := cmp.Diff(want, Merge(older, newer)); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	all, err := Choose(nil)
	if err != nil || len(all) != len(Events()) {
		t.Errorf("none named: %d events, %v; want all", len(all), err)
	}
	chosen, err := Choose([]string{"cut", "start"})
	if err != nil || len(chosen) != 2 || chosen[0].Name != "cut" {
		t.Errorf("two named: %v, %v", chosen, err)
	}
	if _, err := Choose([]string{"cat"}); err == nil || !strings.Contains(err.Error(), `no event "cat": there are start, start-4x8, cut,`) {
		t.Errorf("a wrong name: %v", err)
	}
	if _, err := Choose(Quick()); err != nil {
		t.Error(err)
	}
}
