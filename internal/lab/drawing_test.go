package lab

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"frond/internal/fabric"
)

var update = flag.Bool("update", false, "write the drawings in testdata")

func TestDraw(t *testing.T) {
	odd := SpineLeaf(2, 2)
	odd.connect(End{Node: "leaf1"}, End{Node: "leaf2"})
	odd.connect(End{Node: "leaf1"}, End{Node: "spine1"})
	odd.Nodes = append(odd.Nodes, Node{Name: "edge1", Role: fabric.Exit})
	odd.connect(End{Node: "edge1"}, End{Node: "spine2"})
	broken := States{1: {Cut: true}, 4: {MutedAB: true, MutedBA: true}, 5: {MutedAB: true}, 6: {Cut: true, MutedBA: true}}
	for name, tc := range map[string]struct {
		topology Topology
		states   States
	}{
		"2x3":      {SpineLeaf(2, 3), nil},
		"4x12":     {SpineLeaf(4, 12), nil},
		"6x2":      {SpineLeaf(6, 2), nil},
		"1x1":      {SpineLeaf(1, 1), nil},
		"hub":      {HubAndSpoke(4), nil},
		"ring":     {Ring(3), States{2: {Cut: true}}},
		"parallel": {Parallel(2), nil},
		"odd":      {odd, nil},
		"broken":   {SpineLeaf(2, 3), broken},
	} {
		t.Run(name, func(t *testing.T) {
			got := Draw(tc.topology, tc.states)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestDrawDoesNotMix draws all small sizes: two nodes in one column would be
// one in the drawing.
func TestDrawDoesNotMix(t *testing.T) {
	for spines := 1; spines <= 8; spines++ {
		for leafs := 1; leafs <= 16; leafs++ {
			d := layOut(SpineLeaf(spines, leafs))
			at := map[int]string{}
			for name, column := range d.column {
				if other, taken := at[column]; taken || column >= d.width {
					t.Fatalf("%dx%d: %s and %s in column %d of %d", spines, leafs, name, other, column, d.width)
				}
				at[column] = name
			}
			for _, names := range [][]string{d.spines, d.others} {
				for i := 1; i < len(names); i++ {
					if d.column[names[i]]-d.column[names[i-1]] <= utf8.RuneCountInString(names[i]) {
						t.Fatalf("%dx%d: %s runs into %s", spines, leafs, names[i-1], names[i])
					}
				}
			}
		}
	}
}
