package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) peersCommand() *cobra.Command {
	return question[api.Peers]{ask: askPeers, render: renderPeers}.command(p, "peers", "Show the node's ports and who is behind each",
		"Show the node's ports and who is behind each, whether the session over it is\n"+
			"established, otherwise why not, and since when. Prefixes received and sent are\n"+
			"counted as IPv4+IPv6, and +EVPN where there are any.")
}

func askPeers(ctx context.Context, c *api.Client) (api.Peers, error) {
	peers, err := c.Peers(ctx)
	return api.Peers{Peers: peers}, err
}

func renderPeers(answer api.Peers, v view) string {
	if len(answer.Peers) == 0 {
		return "no peers: this node has none of the ports that the document names\n"
	}
	t := table{columns: []column{
		{name: "PORT"}, {name: "PEER"}, {name: "ASN", right: true}, {name: "STATE"}, {name: "FOR", right: true}, {name: "BFD"},
		{name: "RECEIVED"}, {name: "SENT"}, {name: "FLAPS", right: true}, {name: "REASON"},
	}}
	for _, p := range answer.Peers {
		t.add(cell{text: p.Port}, cell{text: peerName(p)}, cell{text: number(p.ASN)},
			cell{p.State, stateTint(p)}, cell{text: v.since(p.Since)}, cell{p.BFD, bfdTint(p.BFD)},
			cell{text: prefixes(p.Received)}, cell{text: prefixes(p.Sent)}, cell{text: number(p.Flaps)},
			cell{text: remark(p)})
	}
	return t.render(v)
}

// established is the state that a peer should be in.
const established = "established"

func peerName(p status.Peer) string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Address != "":
		return p.Address
	}
	return "?"
}

// remark says what the other columns do not.
func remark(p status.Peer) string {
	var remarks []string
	if p.Reason != "" && p.State != established {
		remarks = append(remarks, p.Reason)
	}
	if p.Restarting {
		remarks = append(remarks, "restarting, its routes are kept")
	}
	if p.Malformed > 0 {
		remarks = append(remarks, fmt.Sprintf("%s treated as withdrawn", count(int(p.Malformed), "malformed update"))) //nolint:gosec // shown, not computed with
	}
	if p.MalformedEVPN > 0 {
		remarks = append(remarks, fmt.Sprintf("%s ignored", count(int(p.MalformedEVPN), "malformed EVPN route"))) //nolint:gosec // as above
	}
	return strings.Join(remarks, "; ")
}

func stateTint(p status.Peer) tint {
	switch {
	case p.State == established:
		return green
	case p.Restarting, p.State == "open", p.State == "connect":
		return yellow
	}
	return red
}

func bfdTint(state string) tint {
	switch state {
	case "down":
		return red
	case "init":
		return yellow
	}
	return noTint
}

// prefixes counts them by family, IPv4 first: 5+5, with EVPN 5+5+3.
func prefixes(byFamily map[string]int) string {
	v4, v6, evpn := byFamily["ipv4"], byFamily["ipv6"], byFamily["evpn"]
	switch {
	case evpn > 0:
		return fmt.Sprintf("%d+%d+%d", v4, v6, evpn)
	case v4+v6 > 0:
		return fmt.Sprintf("%d+%d", v4, v6)
	}
	return ""
}

// number leaves out what is none.
func number[N uint32 | uint64](n N) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}
