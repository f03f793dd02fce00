package node

import (
	"net/netip"

	"frond/internal/api"
	"frond/internal/pki"
	"frond/internal/status"
)

// networkAPI is what is used of api.Network.
type networkAPI interface {
	Set(api.Reach)
	Problem() string
}

// networkOff is the condition of an agent that is to answer over the network
// and cannot.
const networkOff = "network-api-off"

// reach is where the agent is to answer over the network.
func (l *loop) reach() api.Reach {
	n := l.plan.Node
	return api.Reach{Addresses: []netip.Addr{n.Loopback, n.Loopback6}, Files: pki.FilesIn(l.pki, n.Name)}
}

// judgeNetwork puts on the board why nobody can ask over the network.
func (l *loop) judgeNetwork() {
	var wrong []status.Condition
	if problem := l.network.Problem(); problem != "" {
		wrong = append(wrong, status.Condition{Name: networkOff, Subject: "api", Severity: status.Warning,
			Text: "this agent cannot be asked over the network: " + problem})
	}
	l.board.Replace([]string{networkOff}, wrong)
}
