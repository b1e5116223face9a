package marathon

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// reading is one read, on its way and come back.
type reading struct {
	number uint64
	// app is the id of the app, empty for all.
	app string
	// slow is when to ask a second time.
	slow time.Duration

	list   *listing
	doc    *document
	agents map[string]agentAddress
	// leader is who Marathon said leads while it answered; empty if it did not.
	leader string
	err    error
}

// read carries out a read: it asks, decodes and resolves host names.
func (w *Watcher) read(ctx context.Context, r reading) reading {
	type result struct {
		list   *listing
		doc    *document
		leader string
	}
	got, err := hedged(ctx, r.slow, func(ctx context.Context, n int) (result, error) {
		ctx, cancel := context.WithTimeout(ctx, w.config.Intervals.Read)
		defer cancel()
		var res result
		path, prefix := "/v2/apps", "apps."
		if r.app != "" {
			path, prefix = path+r.app, "app."
		}
		query := url.Values{"embed": {prefix + "tasks", prefix + "deployments", prefix + "readiness"}}
		err := w.api.get(ctx, n, path, query, func(a *answer) (err error) {
			res.leader = leaderOf(a.header)
			if r.app != "" {
				res.doc, err = decodeSingle(w.source.String(), a.body)
				return err
			}
			list := &listing{number: r.number}
			list.docs, list.nameless, list.findings, err = decodeApps(w.source.String(), a.body)
			res.list = list
			return err
		})
		return res, err
	})
	r.err, r.leader = err, got.leader
	if err != nil {
		return r
	}
	var hosts []string
	if r.app != "" {
		r.doc = got.doc
		hosts = r.doc.hosts()
	} else {
		r.list = got.list
		for _, d := range r.list.docs {
			hosts = append(hosts, d.hosts()...)
		}
	}
	r.agents = make(map[string]agentAddress, len(hosts))
	for host, a := range w.resolver.Resolve(ctx, hosts) {
		r.agents[host] = agentAddress{addr: a.Addr, err: a.Err}
	}
	if r.list != nil {
		r.list.agents = r.agents
	}
	return r
}

// leaderOf is who leads according to an answer's header.
func leaderOf(h http.Header) string {
	u, err := url.Parse(h.Get("X-Marathon-Leader"))
	if err != nil || u.Host == "" {
		return ""
	}
	return hostPort(u)
}
