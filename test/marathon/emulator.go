package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// faultDocument is a fault's JSON under /_emulator/faults.
type faultDocument struct {
	ID      int       `json:"id,omitempty"`
	Kind    FaultKind `json:"kind"`
	Path    string    `json:"path,omitempty"`
	Method  string    `json:"method,omitempty"`
	Members []int     `json:"members,omitempty"`
	Status  int       `json:"status,omitempty"`
	Body    string    `json:"body,omitempty"`
	DelayMS int       `json:"delayMs,omitempty"`
	Count   int       `json:"count,omitempty"`
}

// serveEmulator is the emulator's own API, the same on every member:
//
//	POST   /_emulator/faults           {"kind":"status","status":503,"path":"/v2/apps","count":3}
//	GET    /_emulator/faults
//	DELETE /_emulator/faults[/ID]
//	POST   /_emulator/streams/silence, …/resume, …/close
//	POST   /_emulator/events           {"type":"…","payload":{…}}
//	POST   /_emulator/events/drop      {"count":1,"types":["status_update_event"]}
//	POST   /_emulator/events/oversized {"bytes":7500000}
//	POST   /_emulator/leader           {"member":1,"gapMs":500}; {"loseHealth":true} only loses health
//	POST   /_emulator/members/1/stop, …/start
//	POST   /_emulator/tasks/ID         {"state":"TASK_UNREACHABLE","alive":false}
func (c *Cluster) serveEmulator(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	reply, err := c.emulatorReply(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/_emulator/"), body)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		reply = object("message", err.Error())
	}
	_, _ = w.Write(mustMarshal(reply)) // the client's loss
}

func (c *Cluster) emulatorReply(what string, body []byte) (any, error) {
	parse := func(into any) error {
		if len(body) == 0 {
			return nil
		}
		if err := json.Unmarshal(body, into); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		return nil
	}
	done := object()
	switch what {
	case "GET faults":
		list := []faultDocument{}
		shown := c.faults.list()
		for number := 1; len(list) < len(shown); number++ {
			if f, has := shown[number]; has {
				list = append(list, faultDocument{number, f.Kind, f.Path, f.Method, f.Members, f.Status, f.Body, int(f.Delay.Milliseconds()), f.Count})
			}
		}
		return object("faults", list), nil
	case "POST faults":
		var f faultDocument
		if err := parse(&f); err != nil {
			return nil, err
		}
		number, err := c.Inject(Fault{
			Kind: f.Kind, Path: f.Path, Method: f.Method, Members: f.Members, Status: f.Status, Body: f.Body,
			Delay: time.Duration(f.DelayMS) * time.Millisecond, Count: f.Count,
		})
		return object("id", number), err
	case "DELETE faults":
		c.ClearFaults()
		return done, nil
	case "POST streams/silence":
		c.SilenceStreams(true)
		return done, nil
	case "POST streams/resume":
		c.SilenceStreams(false)
		return done, nil
	case "POST streams/close":
		c.CloseStreams()
		return done, nil
	case "POST events":
		var e struct {
			Type    string
			Payload map[string]any
		}
		if err := parse(&e); err != nil {
			return nil, err
		}
		c.Publish(e.Type, e.Payload)
		return done, nil
	case "POST events/drop":
		drop := struct {
			Count int
			Types []string
		}{Count: 1}
		if err := parse(&drop); err != nil {
			return nil, err
		}
		c.DropEvents(drop.Count, drop.Types...)
		return done, nil
	case "POST events/oversized":
		size := struct{ Bytes int }{7_500_000}
		if err := parse(&size); err != nil {
			return nil, err
		}
		c.PublishOversizedEvent(size.Bytes)
		return done, nil
	case "POST leader":
		election := struct {
			Member     int
			GapMS      int
			LoseHealth bool
		}{Member: -1}
		if err := parse(&election); err != nil {
			return nil, err
		}
		if election.Member >= len(c.members) {
			return nil, fmt.Errorf("there is no member %d", election.Member)
		}
		if election.LoseHealth {
			c.LoseHealth()
			return done, nil
		}
		c.Elect(election.Member, time.Duration(election.GapMS)*time.Millisecond)
		return done, nil
	}
	return done, c.emulatorItem(what, parse)
}

// emulatorItem is what has an id in its path.
func (c *Cluster) emulatorItem(what string, parse func(any) error) error {
	if id, found := strings.CutPrefix(what, "POST tasks/"); found {
		var change struct {
			State string
			Alive *bool
		}
		if err := parse(&change); err != nil {
			return err
		}
		var errs []error
		if change.State != "" {
			errs = append(errs, c.SetState(id, change.State))
		}
		if change.Alive != nil {
			errs = append(errs, c.SetHealth(id, change.Alive))
		}
		return errors.Join(errs...)
	}
	if id, found := strings.CutPrefix(what, "DELETE faults/"); found {
		number, err := strconv.Atoi(id)
		if err != nil {
			return fmt.Errorf("fault %q is not a number", id)
		}
		c.ClearFault(number)
		return nil
	}
	if rest, found := strings.CutPrefix(what, "POST members/"); found {
		id, verb, _ := strings.Cut(rest, "/")
		index, err := strconv.Atoi(id)
		if err != nil || index < 0 || index >= len(c.members) {
			return fmt.Errorf("there is no member %q", id)
		}
		switch verb {
		case "stop":
			// After the answer, should it be the member that is asked.
			time.AfterFunc(10*time.Millisecond, func() { c.StopMember(index) })
			return nil
		case "start":
			return c.StartMember(index)
		}
	}
	return fmt.Errorf("the emulator does not know %s", what)
}
