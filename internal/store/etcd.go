package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// Bounds of a member. What frond keeps is small: some hundred bytes per lease.
const (
	segmentSize = 8 << 20   // bytes of one file of the write-ahead log; etcd's own are of 64 MB
	quota       = 256 << 20 // bytes of the database, after which only deletions are taken
	keepHistory = "10m"     // revisions older than this are compacted away
	snapEvery   = 10_000    // writes between two snapshots
	catchUp     = 2_000     // writes that a slow follower may lag without needing a snapshot
	keepFiles   = 3         // of snapshots, and of segments behind them
	ready       = time.Second
)

// etcdConfig is how etcd runs here. The peers' addresses are not compared with
// the names in their certificates: which source address a packet of a node has
// is a matter of routes, and the CA vouches for it.
func (s *server) etcdConfig(d decision, log *zapCore) (*embed.Config, error) {
	self := s.self()
	client, err := url.Parse(self.clientURL())
	if err != nil {
		return nil, fmt.Errorf("make the member's URL: %w", err)
	}
	peer, err := url.Parse(self.peerURL())
	if err != nil {
		return nil, fmt.Errorf("make the member's URL: %w", err)
	}
	tls := transport.TLSInfo{
		CertFile: s.Files.Cert, KeyFile: s.Files.Key, ClientCertFile: s.Files.Cert, ClientKeyFile: s.Files.Key,
		TrustedCAFile: s.Files.CA, ClientCertAuth: true, SkipClientSANVerify: true,
	}
	c := embed.NewConfig()
	c.Name, c.Dir = self.Name, s.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.ClientTLSInfo, c.PeerTLSInfo, c.TlsMinVersion = tls, tls, "TLS1.3"
	c.InitialClusterToken = s.Fabric
	c.ClusterState, c.InitialCluster = embed.ClusterStateFlagNew, clusterOf(self, entriesOf(s.Members))
	if d.move == join {
		c.ClusterState, c.InitialCluster = embed.ClusterStateFlagExisting, clusterOf(self, d.roster)
	}
	c.TickMs, c.ElectionMs = uint(heartbeat.Milliseconds()), uint(electionTimeout.Milliseconds())
	c.StrictReconfigCheck, c.PreVote = true, true
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, keepHistory
	c.QuotaBackendBytes, c.SnapshotCount, c.SnapshotCatchUpEntries = quota, snapEvery, catchUp
	c.MaxSnapFiles, c.MaxWalFiles = keepFiles, keepFiles
	c.GRPCKeepAliveInterval, c.GRPCKeepAliveTimeout = 2*time.Second, time.Second
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.logger())
	return c, nil
}

// entriesOf are the members as a cluster that is being formed has them.
func entriesOf(members []Peer) []entry {
	var all []entry
	for _, m := range members {
		all = append(all, entry{Name: m.Name, PeerURLs: []string{m.peerURL()}})
	}
	return all
}

// serve runs etcd until ctx ends, and hands leadership over before it goes.
func (s *server) serve(ctx context.Context, d decision) error {
	wal.SegmentSizeBytes = segmentSize // a variable of the library, in a process that has no other use for it
	log := newZapCore(s.log, s.died)
	config, err := s.etcdConfig(d, log)
	if err != nil {
		return err
	}
	s.reports.say(Starting, NoTrouble, "")
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return s.explain(fmt.Errorf("start etcd: %w", err))
	}
	defer etcd.Close()
	starting := time.NewTimer(ready)
	defer starting.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-etcd.Err():
			return s.ended(log, err)
		case <-etcd.Server.StopNotify():
			return s.stopped(log)
		case <-starting.C:
			s.reports.say(Starting, NoTrouble, "no majority of the members is there yet")
			continue
		case <-etcd.Server.ReadyNotify():
		}
		break
	}
	if etcd.Server.IsLearner() {
		s.reports.say(Joining, NoTrouble, "a learner that has no vote yet")
		if err := s.promote(ctx, uint64(etcd.Server.MemberID())); err != nil {
			return err
		}
	}
	s.reports.say(Serving, NoTrouble, "")
	select {
	case <-ctx.Done():
		return nil
	case err := <-etcd.Err():
		return s.ended(log, err)
	case <-etcd.Server.StopNotify():
		return s.stopped(log)
	}
}

// promote asks for this learner's vote until it has caught up. Only those that
// vote can be asked.
func (s *server) promote(ctx context.Context, id uint64) error {
	tls, err := s.Files.Client(time.Now())
	if err != nil {
		return &failedError{Certificates, err}
	}
	client, err := Open(ClientConfig{Endpoints: Endpoints(s.others()), TLS: tls, Log: s.log})
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		err := client.promote(ctx, id)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.reports.say(Joining, NoTrouble, "a learner that has no vote yet: "+err.Error())
		if !pause(ctx, askAgain) {
			return nil
		}
	}
}

// ended is why etcd ended with an error. When it learns as it starts that this is
// no member any more, that error is only that it stops.
func (s *server) ended(log *zapCore, err error) error {
	if log.removed.Load() {
		return s.stopped(log)
	}
	return s.explain(fmt.Errorf("etcd ended: %w", err))
}

// stopped is why etcd ended by itself.
func (s *server) stopped(log *zapCore) error {
	if !log.removed.Load() {
		return errors.New("etcd ended by itself")
	}
	if err := touch(filepath.Join(s.Dir, removedFile)); err != nil {
		return err
	}
	return &failedError{Removed, fmt.Errorf("%s was removed from the store", s.Name)}
}

// explain adds to an error what would help.
func (s *server) explain(err error) error {
	trouble := troubleOf(err.Error())
	return &failedError{trouble, fmt.Errorf("%w%s", err, s.advice(trouble))}
}

// died is told what etcd says before it ends the process.
func (s *server) died(text string) {
	trouble := troubleOf(text)
	s.reports.say(Failed, trouble, text+s.advice(trouble))
}

func (s *server) advice(t Trouble) string {
	switch t {
	case DiskFull:
		return "; make room for " + s.Dir + ", it starts by itself then"
	case Corrupt:
		return "; move " + filepath.Join(s.Dir, "member") + " away: the member then comes back with what the others have"
	case NoTrouble, Certificates, Removed, Stranger, OtherTrouble:
	}
	return ""
}
