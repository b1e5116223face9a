package marathon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// api is HTTP access to the members of one cluster: fail-over, redirects to the
// leader, credentials. It is safe for concurrent use.
type api struct {
	members      []*url.URL
	client       *http.Client
	username     string
	passwordFile string

	mu       sync.Mutex
	password string
	hasRead  bool
	// preferred is the index of the member that answered last.
	preferred int
	// leaders are the host:port that members themselves have named as leader.
	leaders map[string]bool
}

// mostBody bounds an answer; a list of 20,000 apps has about 100 MB.
const mostBody = 512 << 20

func newAPI(c Config, members []*url.URL) (*api, error) {
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	return &api{
		members: members, username: c.Username, passwordFile: c.PasswordFile,
		leaders: map[string]bool{},
		client: &http.Client{
			Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				// Go drops the credentials when the host changes; redirects are
				// followed below.
				return http.ErrUseLastResponse
			},
		},
	}, nil
}

func (a *api) close() { a.client.CloseIdleConnections() }

// answer is a complete answer of a member.
type answer struct {
	member *url.URL
	status int
	header http.Header
	body   []byte
}

// statusError is an answer other than 2xx.
type statusError struct {
	member  string
	status  int
	message string
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.member, e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += " (check the username and password_file of this Marathon)"
	}
	return text
}

// noSuchApp says whether Marathon itself said that the app does not exist. Any
// other 404 may be a proxy's, or a wrong path, and means nothing.
func noSuchApp(err error) bool {
	var e *statusError
	return errors.As(err, &e) && e.status == http.StatusNotFound &&
		strings.HasPrefix(e.message, "App ") && strings.Contains(e.message, "does not exist")
}

// order is the members' indices, the preferred one first, then shifted by that
// many.
func (a *api) order(shift int) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]int, len(a.members))
	for i := range all {
		all[i] = (a.preferred + shift + i) % len(a.members)
	}
	return all
}

func (a *api) prefer(i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.preferred = i
}

// get asks one member after the other until one gives an answer that accept
// takes.
func (a *api) get(ctx context.Context, shift int, path string, query url.Values, accept func(*answer) error) error {
	var failures []string
	var last error
	for _, i := range a.order(shift) {
		got, err := a.do(ctx, a.members[i], call{method: http.MethodGet, path: path, query: query})
		if err == nil {
			if err = accept(got); err != nil {
				err = fmt.Errorf("%s: %w", hostPort(a.members[i]), err)
			}
		}
		if err == nil {
			a.prefer(i)
			return nil
		}
		if noSuchApp(err) || ctx.Err() != nil {
			return err
		}
		failures, last = append(failures, err.Error()), err
	}
	if len(failures) == 1 {
		return last
	}
	return errors.New(strings.Join(failures, "; "))
}

// call is what to ask of a member.
type call struct {
	method, path string
	query        url.Values
	body         []byte
	accept       string
	// stay refuses redirects.
	stay bool
}

// do makes one request to one member and reads the whole answer.
func (a *api) do(ctx context.Context, member *url.URL, c call) (*answer, error) {
	c.accept = "application/json"
	resp, err := a.open(ctx, member, c)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, mostBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", hostPort(member), err)
	}
	if len(content) > mostBody {
		return nil, fmt.Errorf("the answer of %s is larger than %d MB", hostPort(member), mostBody>>20)
	}
	return &answer{member: member, status: resp.StatusCode, header: resp.Header, body: content}, nil
}

// open makes one request to one member, following redirects, and returns the
// response if it is a 2xx.
func (a *api) open(ctx context.Context, member *url.URL, c call) (*http.Response, error) {
	target := *member
	target.Path += c.path
	target.RawQuery = c.query.Encode()
	retried := false
	for redirects := 0; ; {
		req, err := http.NewRequestWithContext(ctx, c.method, target.String(), bytes.NewReader(c.body))
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", hostPort(&target), err)
		}
		req.Header.Set("Accept", c.accept)
		if len(c.body) > 0 {
			req.Header.Set("Content-Type", "application/json")
		}
		if c.accept == "text/event-stream" {
			// A compressing proxy would hold back events until its buffer is full.
			req.Header.Set("Accept-Encoding", "identity")
			req.Header.Set("Cache-Control", "no-cache")
		}
		used, err := a.authorize(ctx, req, member)
		if err != nil {
			return nil, err
		}
		resp, err := a.client.Do(req)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode/100 == 2:
			return resp, nil
		case resp.StatusCode == http.StatusUnauthorized && used != "" && !retried && a.renewPassword(used):
			retried = true
			drain(resp)
			continue
		case resp.StatusCode/100 == 3 && c.method == http.MethodGet && !c.stay && resp.Header.Get("Location") != "":
			drain(resp)
			next, err := target.Parse(resp.Header.Get("Location"))
			if err != nil || next.Scheme != "http" && next.Scheme != "https" || next.User != nil {
				return nil, fmt.Errorf("%s redirects to an address that is no http url", hostPort(&target))
			}
			if redirects++; redirects > 5 {
				return nil, fmt.Errorf("%s redirects in a circle", hostPort(member))
			}
			target = *next
			continue
		}
		content, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		resp.Body.Close()
		return nil, &statusError{member: hostPort(&target), status: resp.StatusCode, message: messageOf(content)}
	}
}

// drain reads what little there is so that the connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
}

// messageOf is the message in Marathon's own error answers; others, HTML of
// proxies for one, are not repeated.
func messageOf(content []byte) string {
	var e struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(content, &e) != nil {
		return ""
	}
	return watch.Printable(e.Message)
}

// authorize adds the credentials if the request goes to a host that may see
// them, and returns the password used.
func (a *api) authorize(ctx context.Context, req *http.Request, member *url.URL) (string, error) {
	if a.username == "" || !a.trusts(ctx, req.URL, member) {
		return "", nil
	}
	password, err := a.currentPassword()
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(a.username, password)
	return password, nil
}

// trusts says whether the credentials may be sent there: to configured members,
// and to who Marathon itself names as its leader, but never in the clear if all
// configured members are https.
func (a *api) trusts(ctx context.Context, target, member *url.URL) bool {
	to := hostPort(target)
	encrypted := true
	for _, m := range a.members {
		if hostPort(m) == to && m.Scheme == target.Scheme {
			return true
		}
		encrypted = encrypted && m.Scheme == "https"
	}
	if encrypted && target.Scheme != "https" {
		return false
	}
	if a.isLeader(to) {
		return true
	}
	_ = a.learnLeaders(ctx, member)
	return a.isLeader(to)
}

func (a *api) isLeader(hostPort string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leaders[hostPort]
}

// learnLeaders asks a configured member who leads, and under which ports.
func (a *api) learnLeaders(ctx context.Context, member *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	got, err := a.do(ctx, member, call{method: http.MethodGet, path: "/v2/leader", stay: true})
	if err != nil {
		return err
	}
	var named struct {
		Leader string `json:"leader"`
	}
	if err := json.Unmarshal(got.body, &named); err != nil {
		return fmt.Errorf("reading who leads: %w", err)
	}
	leader, err := url.Parse("http://" + named.Leader)
	if err != nil || leader.Hostname() == "" {
		return errors.New("reading who leads: the leader is not named as host:port")
	}
	names := []string{hostPort(leader)}
	// With --ssl_keystore_path the redirect may go to the other of its two ports.
	if got, err := a.do(ctx, member, call{method: http.MethodGet, path: "/v2/info", stay: true}); err == nil {
		var info struct {
			HTTP struct {
				Port      json.Number `json:"http_port"`
				PortHTTPS json.Number `json:"https_port"`
			} `json:"http_config"`
		}
		if json.Unmarshal(got.body, &info) == nil {
			for _, port := range []string{info.HTTP.Port.String(), info.HTTP.PortHTTPS.String()} {
				if u, err := url.Parse("http://" + leader.Hostname() + ":" + port); port != "" && err == nil {
					names = append(names, hostPort(u))
				}
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.leaders)
	for _, name := range names {
		a.leaders[name] = true
	}
	return nil
}

func (a *api) currentPassword() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hasRead || a.passwordFile == "" {
		return a.password, nil
	}
	password, err := readPassword(a.passwordFile)
	if err != nil {
		return "", err
	}
	a.password, a.hasRead = password, true
	return password, nil
}

// renewPassword reads the password again and says whether it differs from the
// one that was refused.
func (a *api) renewPassword(refused string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.passwordFile == "" {
		return false
	}
	password, err := readPassword(a.passwordFile)
	if err != nil {
		return false
	}
	a.password, a.hasRead = password, true
	return password != refused
}

func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the password for Marathon: %w", err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}
