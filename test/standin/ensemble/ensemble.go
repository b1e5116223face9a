// Package ensemble is the side of Mesos and Marathon that faces ZooKeeper: URLs with
// logins, sessions that end, groups of members, and who of them leads.
//
// In come a URL and what a member says of itself; out come members and the loss of a
// session. Znodes are made with the access that Mesos and Marathon give them.
package ensemble

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// URL is zk://user:password@host:port,host:port/path.
type URL struct {
	Servers        []string
	User, Password string
	Path           string
}

// ParseMesos reads a URL as Mesos does: the path begins at the first slash, the
// login ends at the last @.
func ParseMesos(s string) (URL, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "zk://")
	if !ok {
		return URL{}, fmt.Errorf("Expecting 'zk://' at the beginning of the URL")
	}
	var u URL
	u.Path = "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest, u.Path = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		login := rest[:i]
		rest = rest[i+1:]
		u.User, u.Password, ok = strings.Cut(login, ":")
		if !ok {
			return URL{}, errors.New("Expecting 'username:password' before '@'")
		}
	}
	u.Servers = strings.Split(rest, ",")
	for _, server := range u.Servers {
		if server == "" {
			return URL{}, errors.New("Expecting host:port, got nothing")
		}
	}
	return u, nil
}

var marathonURL = regexp.MustCompile(`^zk://(?:([^/:]+):([^@]+)@)?((?:[A-Za-z0-9.-]+:\d+)(?:,[A-Za-z0-9.-]+:\d+)*)(/.*)$`)

// ParseMarathon reads a URL by Marathon's regular expression.
func ParseMarathon(s string) (URL, error) {
	m := marathonURL.FindStringSubmatch(s)
	if m == nil {
		return URL{}, errors.New("it does not have the form zk://[user:password@]host1:port1,…/path")
	}
	return URL{Servers: strings.Split(m[3], ","), User: m[1], Password: m[2], Path: m[4]}, nil
}

// Session is a session with ZooKeeper.
type Session struct {
	Conn *zk.Conn
	url  URL
	lost chan struct{}
	once sync.Once
}

// Dial opens a session, and returns when it has one. The context ends the wait.
func Dial(ctx context.Context, u URL, timeout time.Duration, log *slog.Logger) (*Session, error) {
	s := &Session{url: u, lost: make(chan struct{})}
	events := make(chan zk.Event, 64)
	conn, _, err := zk.Connect(u.Servers, timeout, zk.WithLogInfo(false), zk.WithLogger(quiet{}), zk.WithEventCallback(func(e zk.Event) {
		if e.Type == zk.EventSession {
			select {
			case events <- e:
			default:
			}
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("connect to ZooKeeper: %w", err)
	}
	s.Conn = conn
	if u.User != "" {
		if err := conn.AddAuth("digest", []byte(u.User+":"+u.Password)); err != nil {
			conn.Close()
			return nil, fmt.Errorf("log in to ZooKeeper: %w", err)
		}
	}
	for has := false; !has; {
		select {
		case e := <-events:
			has = e.State == zk.StateHasSession
			if e.State == zk.StateAuthFailed {
				conn.Close()
				return nil, errors.New("ZooKeeper refuses the login")
			}
		case <-ctx.Done():
			conn.Close()
			return nil, fmt.Errorf("connect to ZooKeeper at %s: %w", strings.Join(u.Servers, ","), ctx.Err())
		}
	}
	go s.watch(events, timeout, log)
	return s, nil
}

// watch ends the session when ZooKeeper did, or was away for so long that it must
// have: the client itself notices only when it is back.
func (s *Session) watch(events <-chan zk.Event, timeout time.Duration, log *slog.Logger) {
	var away <-chan time.Time
	for {
		select {
		case e := <-events:
			switch e.State {
			case zk.StateExpired:
				s.end()
				return
			case zk.StateDisconnected:
				if away == nil {
					log.Warn("ZooKeeper is out of contact")
					away = time.After(timeout)
				}
			case zk.StateHasSession:
				away = nil
			}
		case <-away:
			s.end()
			return
		case <-s.lost:
			return
		}
	}
}

func (s *Session) end() { s.once.Do(func() { close(s.lost) }) }

// Lost is closed when the session is over.
func (s *Session) Lost() <-chan struct{} { return s.lost }

// Close gives the session up, and with it everything ephemeral.
func (s *Session) Close() {
	s.end()
	s.Conn.Close()
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// ReadableACL is what Mesos gives its znodes: everybody reads, the creator does all.
func (u URL) ReadableACL() []zk.ACL {
	if u.User == "" {
		return zk.WorldACL(zk.PermAll)
	}
	return append(zk.WorldACL(zk.PermRead), zk.AuthACL(zk.PermAll)...)
}

// PrivateACL is what Marathon gives its znodes: nobody but the creator.
func (u URL) PrivateACL() []zk.ACL {
	if u.User == "" {
		return zk.WorldACL(zk.PermAll)
	}
	return zk.AuthACL(zk.PermAll)
}

// Ensure makes a znode and its parents where they do not exist.
func (s *Session) Ensure(p string, acl []zk.ACL) error {
	at := ""
	for _, part := range strings.Split(strings.Trim(p, "/"), "/") {
		if part == "" {
			continue
		}
		at += "/" + part
		var exists bool
		err := s.again(func() (err error) {
			exists, _, err = s.Conn.Exists(at)
			return err
		})
		if err != nil {
			return fmt.Errorf("look for znode %s: %w", at, err)
		}
		if exists {
			continue
		}
		if _, err := s.Conn.Create(at, nil, 0, acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return fmt.Errorf("create znode %s: %w", at, err)
		}
	}
	return nil
}

// again does something until it does not fail for want of a connection: the session
// goes on with another server, unless it is lost.
func (s *Session) again(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, zk.ErrConnectionClosed) && !errors.Is(err, zk.ErrNoServer) {
			return err
		}
		select {
		case <-s.lost:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Get is what a znode has.
func (s *Session) Get(p string) (data []byte, err error) {
	err = s.again(func() (err error) {
		data, _, err = s.Conn.Get(p)
		return err
	})
	return data, err
}

// Set replaces what a znode has.
func (s *Session) Set(p string, data []byte) error {
	return s.again(func() error {
		_, err := s.Conn.Set(p, data, -1)
		return err
	})
}

// Join adds a member to a group: an ephemeral znode with the next number.
func (s *Session) Join(dir, prefix string, data []byte, acl []zk.ACL) (string, error) {
	if err := s.Ensure(dir, acl); err != nil {
		return "", err
	}
	made, tried := "", false
	err := s.again(func() (err error) {
		if tried { // it may have been made though nobody could say so
			if made, err = s.mine(dir, prefix); err != nil || made != "" {
				return err
			}
		}
		tried = true
		made, err = s.Conn.Create(dir+"/"+prefix, data, zk.FlagEphemeral|zk.FlagSequence, acl)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("join %s: %w", dir, err)
	}
	return made, nil
}

// mine is the member of a group that this session made; empty if there is none.
func (s *Session) mine(dir, prefix string) (string, error) {
	names, _, err := s.Conn.Children(dir)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if !strings.HasPrefix(n, prefix) {
			continue
		}
		_, stat, err := s.Conn.Get(path.Join(dir, n))
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return "", err
		}
		if err == nil && stat.EphemeralOwner == s.Conn.SessionID() {
			return path.Join(dir, n), nil
		}
	}
	return "", nil
}

// Member is one of a group.
type Member struct {
	Path string
	Data []byte
}

// Members are those of a group whose names have a mark in them, oldest first, and a
// channel that has something when they change.
func (s *Session) Members(dir, mark string) ([]Member, <-chan zk.Event, error) {
	var names []string
	var changed <-chan zk.Event
	err := s.again(func() (err error) {
		names, _, changed, err = s.Conn.ChildrenW(dir)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", dir, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.Contains(n, mark) })
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(sequence(a), sequence(b)) })
	var all []Member
	for _, n := range names {
		data, err := s.Get(path.Join(dir, n))
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read %s/%s: %w", dir, n, err)
		}
		all = append(all, Member{path.Join(dir, n), data})
	}
	return all, changed, nil
}

// sequence is the number that ZooKeeper gave.
func sequence(name string) string { return name[max(0, len(name)-10):] }
