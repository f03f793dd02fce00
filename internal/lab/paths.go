package lab

import "slices"

// NextHops computes, purely from the cabling, the ports that a node's route
// to each other node has to use: the first cables of all shortest ways there.
// Nodes that no way leads to are absent. The result is [from][to], sorted.
func NextHops(t Topology) map[string]map[string][]string {
	hops := map[string]map[string][]string{}
	for _, n := range t.Nodes {
		hops[n.Name] = map[string][]string{}
	}
	for _, to := range t.Nodes {
		distance := distances(t, to.Name)
		for _, c := range t.Cables {
			for _, leg := range [][2]End{{c.A, c.B}, {c.B, c.A}} {
				near, far := leg[0], leg[1]
				d, reached := distance[far.Node]
				if reached && near.Node != to.Name && distance[near.Node] == d+1 {
					hops[near.Node][to.Name] = append(hops[near.Node][to.Name], near.Port)
				}
			}
		}
	}
	for _, byNode := range hops {
		for _, ports := range byNode {
			slices.Sort(ports)
		}
	}
	return hops
}

// distances counts the cables on the shortest way from every node to one.
func distances(t Topology, to string) map[string]int {
	neighbours := map[string][]string{}
	for _, c := range t.Cables {
		neighbours[c.A.Node] = append(neighbours[c.A.Node], c.B.Node)
		neighbours[c.B.Node] = append(neighbours[c.B.Node], c.A.Node)
	}
	distance := map[string]int{to: 0}
	for queue := []string{to}; len(queue) > 0; queue = queue[1:] {
		for _, n := range neighbours[queue[0]] {
			if _, seen := distance[n]; !seen {
				distance[n] = distance[queue[0]] + 1
				queue = append(queue, n)
			}
		}
	}
	return distance
}
