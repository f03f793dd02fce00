package plan

import (
	"net/netip"
	"slices"

	"frond/internal/fabric"
)

// Store is the key-value store as a node sees it: embedded with Members, or
// external with Endpoints.
type Store struct {
	Member  bool // this node runs a member
	Members []StoreMember
	// Endpoints are host:port of an external store; the files are what the
	// document names for it.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
}

// StoreMember is a node that runs a member, on its loopback.
type StoreMember struct {
	Name    string
	Address netip.Addr
}

// spreadOf is how the hypervisors' cluster spreads the gateways that it decides
// about, which it may beside a store too.
func spreadOf(f *fabric.Fabric) fabric.Spread {
	if f.Store != nil && f.Store.LXD != nil {
		return f.Store.LXD.Gateways
	}
	return fabric.OnLeader
}

func storeOf(f *fabric.Fabric, node string) *Store {
	if f.Store == nil || f.Store.LXD != nil {
		return nil
	}
	s := &Store{
		Member:    slices.Contains(f.Store.Members, node),
		Endpoints: f.Store.Endpoints,
		CAFile:    f.Store.CAFile,
		CertFile:  f.Store.CertFile,
		KeyFile:   f.Store.KeyFile,
	}
	for _, name := range f.Store.Members {
		if n, ok := f.Node(name); ok {
			s.Members = append(s.Members, StoreMember{name, n.Loopback})
		}
	}
	return s
}
