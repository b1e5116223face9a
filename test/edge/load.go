package edge

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// LoadOptions say what the clients ask for.
type LoadOptions struct {
	// Address to connect to: [Edge.HTTPAddress].
	Address string
	Host    string
	// Path is "/" where it is empty.
	Path string
	// Method is GET where it is empty. Requests have no body.
	Method string
	// Clients is 8 where it is 0. Every other one keeps its connection for its next
	// request, as browsers do.
	Clients int
	// Pause between two requests of a client; 5 ms where it is 0.
	Pause time.Duration
	// Repeat lets a client do what HTTP asks of it (RFC 9112, 9.3.1): if a connection
	// that it has kept is closed before anything of the answer is there, it sends a GET
	// once more, over a new one. HAProxy counts on that where a server ends with
	// requests under way. Such requests are counted: see [Load.Repeated].
	Repeat bool
}

// Load is a number of clients that ask until they are stopped. They speak HTTP/1.1
// themselves, since Go's client asks a second time where it can, without a word.
type Load struct {
	t    testing.TB
	o    LoadOptions
	stop chan struct{}
	all  sync.WaitGroup
	once sync.Once

	mu       sync.Mutex
	total    int
	repeated int
	failed   map[string]int
	answers  map[string]int
	// recent are the latest bodies in turn, since the last WaitServedBy began.
	recent []string
}

// recently is how many answers in a row are taken for what all clients get.
const recently = 60

// StartLoad lets clients ask until [Load.Stop], or the end of the test.
func StartLoad(t testing.TB, o LoadOptions) *Load {
	t.Helper()
	o.Path = cmp.Or(o.Path, "/")
	o.Method = cmp.Or(o.Method, http.MethodGet)
	o.Clients = cmp.Or(o.Clients, 8)
	o.Pause = cmp.Or(o.Pause, 5*time.Millisecond)
	l := &Load{t: t, o: o, stop: make(chan struct{}), failed: map[string]int{}, answers: map[string]int{}}
	for i := range o.Clients {
		l.all.Go(func() { l.client(i%2 == 0) })
	}
	t.Cleanup(l.End)
	return l
}

// Load lets clients ask the edge for a host until [Load.Stop].
func (e *Edge) Load(host string) *Load {
	e.t.Helper()
	return StartLoad(e.t, LoadOptions{Address: e.HTTPAddress, Host: host})
}

// End ends the clients, whatever has failed.
func (l *Load) End() {
	l.once.Do(func() { close(l.stop) })
	l.all.Wait()
}

// Stop ends the clients and fails the test if any request failed, or none was made.
func (l *Load) Stop() {
	l.t.Helper()
	l.End()
	l.Check()
}

// Check fails the test if any request has failed so far, or none was made.
func (l *Load) Check() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) > 0 || l.total == 0 {
		l.t.Errorf("of %d requests (%s) for %s failed: %v; answers by %v", l.total, l.o.Method, l.o.Host, l.failures(), l.answers)
	}
}

func (l *Load) failures() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(l.failed)) {
		all = append(all, fmt.Sprintf("%d × %s", l.failed[reason], reason))
	}
	return strings.Join(all, ", ")
}

// Total is how many requests were made.
func (l *Load) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Repeated is how many requests were sent a second time: see [LoadOptions.Repeat].
func (l *Load) Repeated() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.repeated
}

// Answers counts the answers by their bodies.
func (l *Load) Answers() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers)
}

// Failed counts the requests that failed, by reason.
func (l *Load) Failed() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.failed)
}

// WaitServedBy returns when for a while only these have answered, and each of them,
// counted from now on.
func (l *Load) WaitServedBy(names ...string) {
	l.t.Helper()
	l.mu.Lock()
	l.recent = nil
	l.mu.Unlock()
	slices.Sort(names)
	Wait(l.t, fmt.Sprintf("%s served by %s alone", l.o.Host, strings.Join(names, ", ")), func() error {
		l.mu.Lock()
		recent := slices.Clone(l.recent)
		l.mu.Unlock()
		if len(recent) < recently {
			return fmt.Errorf("%d answers; failed: %v", len(recent), l.Failed())
		}
		slices.Sort(recent)
		if seen := slices.Compact(recent); !slices.Equal(seen, names) {
			return fmt.Errorf("served by %v; failed: %v", seen, l.Failed())
		}
		return nil
	})
}

// WaitMore returns when so many requests more have been answered.
func (l *Load) WaitMore(requests int) {
	l.t.Helper()
	from := l.Total()
	Wait(l.t, fmt.Sprintf("%d more requests", requests), func() error {
		if now := l.Total(); now < from+requests {
			return fmt.Errorf("%d so far", now-from)
		}
		return nil
	})
}

func (l *Load) count(body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.failed[err.Error()]++
		return
	}
	l.answers[body]++
	if len(l.recent) >= recently {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-recently+1)
	}
	l.recent = append(l.recent, body)
}

// client asks until it is stopped; with a connection for each request, or one for
// all as long as the edge keeps it.
func (l *Load) client(keep bool) {
	var c *connection
	defer func() { c.close() }()
	pause := time.NewTicker(l.o.Pause)
	defer pause.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-pause.C:
		}
		if c.closedByPeer() {
			c.close()
			c = nil
		}
		body, again, err := "", false, error(nil)
		if c == nil {
			c, err = dial(l.o.Address)
		}
		if err == nil {
			body, again, err = c.ask(l.o.Method, l.o.Host, l.o.Path, keep)
		}
		if l.o.Repeat && errors.Is(err, errNoAnswer) && l.o.Method == http.MethodGet {
			l.mu.Lock()
			l.repeated++
			l.mu.Unlock()
			c.close()
			if c, err = dial(l.o.Address); err == nil {
				body, again, err = c.ask(l.o.Method, l.o.Host, l.o.Path, keep)
			}
		}
		l.count(body, err)
		if !again {
			c.close()
			c = nil
		}
	}
}

// connection of a client; nil is one that is not there.
type connection struct {
	net.Conn
	reader *bufio.Reader
	used   bool
}

// answerWithin is when a client gives up.
const answerWithin = 15 * time.Second

func dial(address string) (*connection, error) {
	conn, err := net.DialTimeout("tcp", address, answerWithin)
	if err != nil {
		return nil, fmt.Errorf("connect: %s", cause(err))
	}
	return &connection{Conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (c *connection) close() {
	if c != nil {
		c.Conn.Close()
	}
}

// closedByPeer: an idle connection may be closed at any time, and every client looks
// before it uses one again.
func (c *connection) closedByPeer() bool {
	if c == nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	_, err := c.reader.Peek(1)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// errNoAnswer: the edge closed a connection that had been used before, and gave no
// answer.
var errNoAnswer = errors.New("a kept connection was closed without an answer")

// ask makes one request. Again says whether the connection can be used again.
func (c *connection) ask(method, host, path string, keep bool) (body string, again bool, err error) {
	_ = c.SetDeadline(time.Now().Add(answerWithin))
	where, kept := " of a new connection", c.used
	if kept {
		where = " of a kept connection"
	}
	c.used = true
	header := ""
	if !keep {
		header = "Connection: close\r\n"
	}
	if method != http.MethodGet {
		header += "Content-Length: 0\r\n"
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, host, header); err != nil {
		return "", false, fmt.Errorf("write: %s%s", cause(err), where)
	}
	if _, err := c.reader.Peek(1); err == io.EOF && kept {
		return "", false, errNoAnswer
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", false, fmt.Errorf("read: %s%s", cause(err), where)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return "", false, fmt.Errorf("read the body: %s%s", cause(err), where)
	}
	if response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return string(content), keep && !response.Close, err
}

// cause is an error without the addresses in it, so that equal ones are counted as
// such.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
