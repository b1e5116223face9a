package scheduler

//lint:file-ignore ST1005 these are the words of Marathon.

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

const via = "X-Marathon-Via"

// ServeHTTP answers as a member of Marathon: by itself if it leads, else through
// the leader. Everything asks for the login, /ping too.
func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.settings.username != "" {
		username, password, ok := r.BasicAuth()
		if !ok || subtle.ConstantTimeCompare([]byte(username), []byte(m.settings.username)) != 1 ||
			subtle.ConstantTimeCompare([]byte(password), []byte(m.settings.password)) != 1 {
			w.Header().Set("WWW-Authenticate", `basic realm="Mesosphere"`)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
	}
	if r.URL.Path == "/ping" {
		w.Header().Set("Content-Type", "text/plain;charset=utf-8")
		fmt.Fprint(w, "pong")
		return
	}
	m.mu.Lock()
	leader, cluster := m.leader, m.cluster
	m.mu.Unlock()
	switch {
	case cluster != nil && r.URL.Path == "/v2/leader":
		m.serveLeader(w, r)
	case cluster != nil:
		m.pass(w, r, cluster.URL(), true)
	case leader == "" || leader == m.settings.address():
		http.Error(w, "Could not determine the current leader", http.StatusServiceUnavailable)
	case r.Header.Get(via) != "":
		http.Error(w, "Detected proxying loop.", http.StatusBadGateway)
	default:
		m.pass(w, r, "http://"+leader, false)
	}
}

func (m *member) serveLeader(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.Method {
	case http.MethodGet:
		fmt.Fprintf(w, "{\"leader\":%q}", m.settings.address())
	case http.MethodDelete:
		fmt.Fprint(w, `{"message":"Leadership abdicated"}`)
		// After the answer.
		time.AfterFunc(100*time.Millisecond, func() { m.abdicate(errors.New("Leadership abdicated")) })
	default:
		http.Error(w, "", http.StatusMethodNotAllowed)
	}
}

// pass hands a request to the emulator of this member, or to the leader.
func (m *member) pass(w http.ResponseWriter, r *http.Request, to string, own bool) {
	target, err := url.Parse(to)
	if err != nil {
		http.Error(w, "Connection to leader refused.", http.StatusBadGateway)
		return
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.SetXForwarded()
			if !own {
				p.Out.Header.Add(via, "1.1 "+m.settings.address())
			}
		},
		ModifyResponse: func(response *http.Response) error {
			if !own {
				response.Header.Add(via, "1.1 "+m.settings.address())
				return nil
			}
			response.Header.Set("X-Marathon-Leader", "http://"+m.settings.address())
			if r.URL.Path == "/v2/info" && response.StatusCode == http.StatusOK {
				return m.describe(response)
			}
			return nil
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "Connection to leader refused.", http.StatusBadGateway)
		},
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	proxy.ServeHTTP(w, r)
}

// describe puts this member into what the emulator says of itself.
func (m *member) describe(response *http.Response) error {
	var info map[string]any
	if err := json.NewDecoder(response.Body).Decode(&info); err != nil {
		return err
	}
	m.mu.Lock()
	framework := m.framework
	m.mu.Unlock()
	info["elected"], info["leader"], info["frameworkId"] = true, m.settings.address(), framework
	if framework == "" {
		info["frameworkId"] = nil
	}
	if config, ok := info["http_config"].(map[string]any); ok {
		config["http_port"] = m.settings.port
	}
	if config, ok := info["marathon_config"].(map[string]any); ok {
		config["hostname"], config["framework_name"] = m.settings.hostname, m.settings.name
	}
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(data))
	response.ContentLength = int64(len(data))
	response.Header.Set("Content-Length", fmt.Sprint(len(data)))
	return nil
}
