package plan

import (
	"frond/internal/fabric"
	"frond/internal/guard"
)

// Guard is what peers and guests of a node may do.
type Guard struct {
	Routes *guard.Routes // nil: peers may announce what they like
	Guests *guard.Guests // nil: guests may send what they like
}

func guardOf(f *fabric.Fabric, n fabric.Node) Guard {
	var g Guard
	if f.Guard.Routes {
		g.Routes = guard.RoutesFor(f, n)
	}
	if f.Guard.Guests {
		g.Guests = guard.GuestsFor(f, n)
	}
	return g
}
