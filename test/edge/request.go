package edge

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Answer to one request.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// oneRequest has a connection of its own for every request.
var oneRequest = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// HTTP asks the edge for a path of a host.
func (e *Edge) HTTP(host, path string) (Answer, error) {
	return request(e.HTTPAddress, host, path)
}

// Port asks a service port, by HTTP.
func (e *Edge) Port(number int) (Answer, error) {
	address := fmt.Sprintf("127.0.0.1:%d", number)
	return request(address, address, "/")
}

func request(address, host, path string) (Answer, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return Answer{}, err
	}
	r.Host = host
	response, err := oneRequest.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Answer{response.StatusCode, response.Header, string(body)}, err
}

// WaitHTTP returns when the host answers 200 with one of the bodies; with any, if
// none is given.
func (e *Edge) WaitHTTP(host string, bodies ...string) {
	e.t.Helper()
	Wait(e.t, fmt.Sprintf("an answer of %s by %s", host, strings.Join(bodies, " or ")), func() error {
		return expect(bodies)(e.HTTP(host, "/"))
	})
}

// WaitPort is [Edge.WaitHTTP] for a service port.
func (e *Edge) WaitPort(number int, bodies ...string) {
	e.t.Helper()
	Wait(e.t, fmt.Sprintf("an answer of port %d by %s", number, strings.Join(bodies, " or ")), func() error {
		return expect(bodies)(e.Port(number))
	})
}

func expect(bodies []string) func(Answer, error) error {
	return func(a Answer, err error) error {
		if err != nil {
			return err
		}
		if a.Status != http.StatusOK || (len(bodies) > 0 && !slices.Contains(bodies, a.Body)) {
			return fmt.Errorf("it answered %d %.200q", a.Status, a.Body)
		}
		return nil
	}
}
