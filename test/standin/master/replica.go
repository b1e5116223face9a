package master

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// The states of a replica of Mesos's log.
const (
	empty    = "EMPTY"
	starting = "STARTING"
	voting   = "VOTING"
)

// replica is a master's copy of the replicated log; there is nothing in it but
// whether it may vote, which decides who can recover.
type replica struct {
	file   string
	zk     ensemble.URL
	quorum int
	auto   bool

	mu       sync.Mutex
	status   string
	ensemble int // members that are there
	voters   int // of them
}

// member is what a replica says of itself.
type member struct {
	PID    string `json:"pid"`
	Status string `json:"status"`
}

func openReplica(s settings) (*replica, error) {
	dir := filepath.Join(s.workDir, "replicated_log")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("Failed to create work directory: %w", err)
	}
	r := &replica{file: filepath.Join(dir, "STATUS"), zk: s.zk, quorum: s.quorum, auto: s.autoInitialize, status: empty}
	data, err := os.ReadFile(r.file)
	switch {
	case err == nil:
		r.status = strings.TrimSpace(string(data))
	case !os.IsNotExist(err):
		return nil, fmt.Errorf("Failed to recover the log: %w", err)
	}
	return r, nil
}

func (r *replica) set(status string) error {
	if err := os.WriteFile(r.file+".new", []byte(status+"\n"), 0o600); err != nil {
		return fmt.Errorf("Failed to write to the log: %w", err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		return fmt.Errorf("Failed to write to the log: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
	return nil
}

// recover joins the group of replicas and follows it. A replica that is new may
// vote when a quorum of voters lets it catch up, or when all 2·quorum-1 members are
// new; never in between, which is why one master cannot become three.
func (r *replica) recover(ctx context.Context, session *ensemble.Session, info wire.MasterInfo, log *slog.Logger) error {
	dir := strings.TrimSuffix(r.zk.Path, "/") + replicas
	pid := strings.Replace(info.PID, "master@", "log-replica(1)@", 1)
	data := func() []byte { return encode(member{pid, r.now()}) }
	me, err := session.Join(dir, "", data(), r.zk.ReadableACL())
	if err != nil {
		return fmt.Errorf("Failed to join the log's group: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		members, _, err := session.Members(dir, "")
		if err != nil {
			return fmt.Errorf("Failed to watch the log's group: %w", err)
		}
		count := map[string]int{}
		for _, x := range members {
			var m member
			if json.Unmarshal(x.Data, &m) == nil {
				count[m.Status]++
			}
		}
		r.mu.Lock()
		r.ensemble, r.voters = len(members), count[voting]
		r.mu.Unlock()
		next := r.now()
		switch {
		case next == voting:
		case count[voting] >= r.quorum:
			next = voting
		case next == empty && r.auto && count[empty]+count[starting] == 2*r.quorum-1:
			next = starting
		case next == starting && count[starting]+count[voting] >= 2*r.quorum-1:
			next = voting
		}
		if next != r.now() {
			if err := r.set(next); err != nil {
				return err
			}
			log.Info("replica", "status", next)
			if err := session.Set(me, data()); err != nil {
				return fmt.Errorf("Failed to tell the log's group: %w", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *replica) now() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// readable says whether a quorum of replicas could be asked.
func (r *replica) readable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status == voting && r.voters >= r.quorum
}

func (r *replica) metrics() (recovered, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status == voting {
		recovered = 1
	}
	return recovered, r.ensemble
}
