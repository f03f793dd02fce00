package lab

import (
	"strings"

	"frond/internal/fabric"
)

// Cabled is the topology of a document and of lines that each name the two
// ends of a cable, "leaf1:eth1 spine1:eth3". Without a port the next free one
// of eth1, eth2, … is taken; # begins a comment. Without any line every spine
// is cabled to every other node. Uplinks of exits are cabled to the internet.
func Cabled(f *fabric.Fabric, lines []string) (Topology, error) {
	var t Topology
	for _, n := range f.Nodes {
		t.Nodes = append(t.Nodes, Node{Name: n.Name, Role: n.Role})
	}
	if len(t.Nodes) > maxNodes {
		return Topology{}, inputf("%d nodes: a lab has at most %d", len(t.Nodes), maxNodes)
	}
	ends, err := parseCables(lines)
	if err != nil {
		return Topology{}, err
	}
	if len(ends) == 0 {
		ends = everySpineToEveryOther(t.Nodes)
	}
	if len(ends) > maxCables {
		return Topology{}, inputf("%d cables: a lab has at most %d", len(ends), maxCables)
	}
	// Ports that are named come first, so that none of them is given away.
	for _, named := range []bool{true, false} {
		for _, e := range ends {
			if named == (e[0].Port != "" && e[1].Port != "") {
				t.connect(e[0], e[1])
			}
		}
	}
	t, err = t.WithInternet(f)
	if err != nil {
		return Topology{}, err
	}
	return t, t.check(f)
}

func parseCables(lines []string) (ends [][2]End, err error) {
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, inputf("cable %q: want two ends, as in \"leaf1:eth1 spine1:eth1\"", line)
		}
		var cable [2]End
		for i := range cable {
			if cable[i], err = ParseEnd(fields[i]); err != nil {
				return nil, inputf("cable %q: %w", line, err)
			}
		}
		ends = append(ends, cable)
	}
	return ends, nil
}

func everySpineToEveryOther(nodes []Node) (ends [][2]End) {
	for _, n := range nodes {
		for _, spine := range nodes {
			if n.Role != fabric.Spine && spine.Role == fabric.Spine {
				ends = append(ends, [2]End{{Node: n.Name}, {Node: spine.Name}})
			}
		}
	}
	return ends
}
