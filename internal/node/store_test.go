package node

import (
	"strings"
	"testing"
	"time"

	"frond/internal/pki"
	"frond/internal/status"
	"frond/internal/store"
)

func TestStoreRunsOnlyWhereItIsNeeded(t *testing.T) {
	r := began(t)
	if len(r.store.desired.Endpoints) != 0 || r.store.desired.Member != "" {
		t.Errorf("nothing needs a store, but %+v is desired", r.store.desired)
	}
	const segment = "segments: {blue: {vni: 1, nodes: [leaf1], prefix: 172.16.0.0/24, dhcp: {range: 172.16.0.9-172.16.0.20}}}\n"
	const external = `store: {endpoints: ["etcd1:2379"], ca_file: /ca, cert_file: /cert, key_file: /key}`
	for name, test := range map[string]struct {
		document string
		member   string
		url      string
		files    pki.Files
	}{
		"embedded": {testDocument + segment, "leaf1", "https://10.0.200.1:2379", pki.FilesIn("/pki", "leaf1")},
		"not here": {testDocument + segment + "store: {members: [leaf2]}", "", "https://10.0.200.2:2379", pki.FilesIn("/pki", "leaf1")},
		"external": {testDocument + segment + external, "", "https://etcd1:2379", pki.Files{CA: "/ca", Cert: "/cert", Key: "/key"}},
	} {
		r.adopt(parse(t, test.document, "leaf1"), nil)
		r.step()
		d := r.store.desired
		if d.Member != test.member || len(d.Endpoints) != 1 || d.Endpoints[0].URL != test.url || d.Files != test.files {
			t.Errorf("%s: %+v", name, d)
		}
	}
	r.adopt(parse(t, testDocument, "leaf1"), nil)
	r.step()
	if len(r.store.desired.Endpoints) != 0 {
		t.Error("the store goes on although nothing needs it any more")
	}
}

func TestConditionsOfTheStore(t *testing.T) {
	member := func(s store.State, trouble store.Trouble, text string) store.ServiceReport {
		return store.ServiceReport{Desired: store.Desired{Member: "leaf1"}, Member: &store.Report{State: s, Trouble: trouble, Text: text}}
	}
	seen := func(majority bool, problem string) store.ServiceReport {
		return store.ServiceReport{Health: &store.Health{Majority: majority,
			Members: []store.MemberHealth{{Endpoint: store.Endpoint{Name: "leaf1"}}, {Endpoint: store.Endpoint{Name: "leaf2"}, Problem: problem}}}}
	}
	for name, test := range map[string]struct {
		report    store.ServiceReport
		condition string
		severity  status.Severity
	}{
		"none":             {store.ServiceReport{}, "", ""},
		"serves":           {member(store.Serving, "", ""), "", ""},
		"begins":           {member(store.Starting, "", ""), "", ""},
		"waits":            {member(store.Waiting, "", "missing leaf2"), storeMemberDown, status.Warning},
		"disk full":        {member(store.Failed, store.DiskFull, "make room"), storeMemberDown, status.Failure},
		"no files":         {store.ServiceReport{Problem: "leaf1.key is missing"}, storeAway, status.Failure},
		"whole":            {seen(true, ""), "", ""},
		"one away":         {seen(true, "does not run"), storeReduced, status.Warning},
		"without majority": {seen(false, "does not run"), storeAway, status.Failure},
	} {
		got := storeProblems(test.report, time.Now())
		test.report.Since = time.Now()
		if young := storeProblems(test.report, time.Now()); len(young) != 0 {
			t.Errorf("%s: it has just begun, and already there is %+v", name, young)
		}
		switch {
		case test.condition == "" && len(got) == 0:
		case len(got) != 1 || got[0].Name != test.condition || got[0].Severity != test.severity || strings.HasSuffix(got[0].Text, ": "):
			t.Errorf("%s: %+v", name, got)
		}
	}
}
