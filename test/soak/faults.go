package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// confirming is for how long instances are held that were there before mi-lb or Consul
// was away, and are not afterwards. What leads to that is not done so late that the end
// would have to wait for it.
const confirming = 75 * time.Second

const restored = "Consul restored to a snapshot"

// fault is one of those below, by chance.
func (s *soak) fault() {
	faults := []struct {
		name string
		do   func()
	}{
		{"mi-lb killed", s.killMiLB},
		{"mi-lb ended, HAProxy handed over", s.handOver},
		{"HAProxy's worker killed", func() { s.killHAProxy(s.edge.Processes().Worker()) }},
		{"HAProxy's master killed", func() { s.killHAProxy(s.edge.Processes().Master) }},
		{"HAProxy reloaded by somebody else", func() {
			if _, err := s.edge.Master().Reload(s.ctx); err != nil {
				s.t.Logf("reload HAProxy: %v", err)
			}
		}},
		{"Consul killed and started again", func() {
			s.check(s.agent.Restart(s.ctx, false))
			s.check(s.agent.WaitLeader(s.ctx))
		}},
		{restored, s.restore},
		{"Consul hangs", func() {
			s.check(s.agent.Pause())
			time.Sleep(time.Duration(500+s.random.IntN(2500)) * time.Millisecond)
			s.check(s.agent.Resume())
		}},
		{"Marathon elects another leader", func() { s.cluster.Elect(-1, time.Duration(s.random.IntN(2000))*time.Millisecond) }},
		{"Marathon closes its event streams", s.cluster.CloseStreams},
		{"Marathon answers with errors", func() { s.marathonFails(marathon.Fault{Kind: marathon.FaultStatus, Status: 503}) }},
		{"Marathon answers with half of it", func() { s.marathonFails(marathon.Fault{Kind: marathon.FaultTruncate}) }},
		{"Marathon loses events", func() {
			s.cluster.DropEvents(20)
			// What makes them get lost in earnest also ends the stream.
			s.later(time.Second, s.cluster.CloseStreams)
		}},
		{"Marathon's streams fall silent", func() {
			s.cluster.SilenceStreams(true)
			s.later(8*time.Second, func() {
				s.cluster.SilenceStreams(false)
				s.cluster.CloseStreams()
			})
		}},
	}
	f := faults[s.random.IntN(len(faults))]
	if f.name == restored && time.Until(s.end) < confirming {
		return
	}
	s.t.Logf("fault: %s", f.name)
	s.done[f.name]++
	f.do()
}

// later does something unless the soak is over before; then it is done at its end.
func (s *soak) later(after time.Duration, do func()) {
	s.undo = append(s.undo, undo{time.Now().Add(after), do})
}

// killMiLB ends mi-lb as a crash does, and starts it again after some more changes.
func (s *soak) killMiLB() {
	s.reloads += s.edge.Reloads()
	s.edge.Kill()
	s.changesMeanwhile()
	s.edge.Start()
	s.edge.WaitReady()
}

func (s *soak) handOver() {
	s.reloads += s.edge.Reloads()
	s.edge.HandOver()
	s.changesMeanwhile()
	s.edge.Start()
	s.edge.WaitReady()
}

func (s *soak) changesMeanwhile() {
	if time.Until(s.end) < confirming {
		return
	}
	for range s.random.IntN(15) {
		s.change()
	}
}

// killHAProxy ends one of its processes. Until it serves again requests may fail.
func (s *soak) killHAProxy(pid int) {
	from := time.Now()
	s.edge.KillHAProxy(pid)
	edge.Wait(s.t, "HAProxy again", func() error {
		_, err := s.edge.HTTP("nobody.example", "/")
		return err
	})
	for i := range s.o.services {
		s.edge.WaitHTTP(permanentName(i) + "." + edge.Domain)
	}
	s.edge.WaitHTTP("ws." + edge.Domain)
	s.waitEcho()
	// What was sent before the end may be noticed after it.
	s.windows = append(s.windows, window{from, time.Now().Add(time.Second)})
}

// restore puts Consul back to what it was a few changes ago.
func (s *soak) restore() {
	var saved []byte
	s.write(func(context.Context) error {
		reader, _, err := s.agent.Client().Snapshot().Save(nil)
		if err != nil {
			return err
		}
		defer reader.Close()
		saved, err = io.ReadAll(reader)
		return err
	})
	s.changesMeanwhile()
	s.write(func(context.Context) error { return s.agent.Client().Snapshot().Restore(nil, bytes.NewReader(saved)) })
}

func (s *soak) marathonFails(f marathon.Fault) {
	f.Path, f.Method = "/v2/apps", http.MethodGet
	number, err := s.cluster.Inject(f)
	s.check(err)
	s.later(time.Duration(1+s.random.IntN(4))*time.Second, func() { s.cluster.ClearFault(number) })
}
