package marathon

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

var three = []string{"m1:8080", "m2:8080", "m3:8080"}

func withApp(c *cluster, _ *Config) {
	c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:alive", "t2:31002:TASK_RUNNING:alive")
	c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:dead")
}

var whole = []string{"/a t1 10.0.0.1:31001 passing", "/a t2 10.0.0.1:31002 passing", "/b u1 10.0.0.1:32001 critical"}

func TestFirstListIsPublishedAndUnchangedAppsKeepTheirPointers(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		s.is(t, "at first", whole...)
		state := s.status(t, "at first", watch.Current)
		if !strings.Contains(state.Detail, "events from m1:8080; Marathon 1.4.5, leader m1:8080") {
			t.Error(state.Detail)
		}
		p, _ := s.now()
		if p.Source != (watch.Source{Kind: watch.Marathon, Name: "m1:8080"}) || p.Datacenter != "dc1" {
			t.Errorf("%+v", p)
		}
		if got := p.Apps["/a"].Env; len(got) != 1 || got["SERVICE_NAME"] != "x" {
			t.Errorf("environment: %v", got)
		}
		parts := s.count()
		after(10 * time.Minute)
		if n := s.count(); n != parts {
			t.Errorf("published %d times without a change", n-parts)
		}
		c.set(func() { c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:alive") })
		c.send("instance_health_changed_event", `{"runSpecId":"/b","instanceId":"u1","healthy":true}`)
		synctest.Wait()
		q, _ := s.now()
		if q.Apps["/a"] != p.Apps["/a"] || q.Apps["/b"] == p.Apps["/b"] {
			t.Error("pointers")
		}
	})
}

func TestEndingTaskDrainsBeforeAnythingIsRead(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		// Marathon's REST side does not answer, and would say that all is well.
		c.set(func() {
			c.fault = func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		})
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_KILLING"}`)
		c.send("status_update_event", `{"appId":"/b","taskId":"u1","taskStatus":"TASK_UNREACHABLE"}`)
		synctest.Wait()
		after(betweenParts)
		s.is(t, "killing", "/a t1 10.0.0.1:31001 maintenance", whole[1], whole[2])
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_KILLED"}`)
		after(betweenParts)
		s.is(t, "killed", "/a t1 10.0.0.1:31001 TASK_KILLED", whole[1], whole[2])
		// What comes late does not bring it back.
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_KILLING"}`)
		c.send("health_status_changed_event", `{"appId":"/a","taskId":"t1","alive":false}`)
		c.set(func() { c.fault = nil })
		after(30 * time.Second)
		s.is(t, "afterwards", "/a t1 10.0.0.1:31001 TASK_KILLED", whole[1], whole[2])
		s.status(t, "afterwards", watch.Current)
	})
}

func TestFreshTaskIsServedByItsFirstGoodResult(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		fresh := strings.Replace(app("/a", "t1:31001:TASK_RUNNING:alive", "t3:31003:TASK_RUNNING:none"), "1999-01-01", "2000-01-01", 2)
		c.set(func() { c.apps["/a"] = fresh })
		c.send("status_update_event", `{"appId":"/a","taskId":"t3","taskStatus":"TASK_RUNNING"}`)
		after(betweenParts)
		s.is(t, "fresh", whole[0], "/a t2 10.0.0.1:31002 TASK_GONE", "/a t3 10.0.0.1:31003 critical", whole[2])
		c.set(func() { c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:alive", "t3:31003:TASK_RUNNING:alive") })
		c.send("health_status_changed_event", `{"appId":"/a","instanceId":"t3","alive":true}`)
		after(betweenReads + betweenParts)
		s.is(t, "checked", whole[0], "/a t2 10.0.0.1:31002 TASK_GONE", "/a t3 10.0.0.1:31003 passing", whole[2])
	})
}

func TestSilentStreamIsReplacedAndWhatWasMissedRepaired(t *testing.T) {
	watching(t, three, func(c *cluster, config *Config) { withApp(c, config); c.silent = true }, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() {
			c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:alive")
			c.silent = false
		})
		s.is(t, "missed", whole...)
		after(26 * time.Second)
		s.is(t, "after 30 s of silence", whole[0], "/a t2 10.0.0.1:31002 TASK_GONE", whole[2])
		_, state := s.now()
		if !strings.Contains(state.LastError, "sent nothing for 30s") {
			t.Error(state.LastError)
		}
		if n := c.count("/v2/events"); n < 2 {
			t.Errorf("%d streams", n)
		}
		streams := c.count("/v2/events")
		after(10 * time.Minute)
		if n := c.count("/v2/events"); n != streams {
			t.Errorf("heartbeats did not keep the stream: %d more", n-streams)
		}
	})
}

func TestMissedEventIsRepairedByTheNextResync(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { delete(c.apps, "/b") })
		after(34 * time.Second)
		s.is(t, "after a resync", whole[:2]...)
	})
}

func TestLeaderRedirectTakesTheCredentialsAlong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	prepare := func(c *cluster, config *Config) {
		withApp(c, config)
		// The leader is one that is not configured.
		c.leader, c.auth = "m3:8080", "edge:old"
		config.URLs = config.URLs[:2]
		config.Username, config.PasswordFile = "edge", file
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		s.is(t, "at first", whole...)
		if state := s.status(t, "at first", watch.Current); !strings.Contains(state.Detail, "events from m3:8080") {
			t.Error(state.Detail)
		}
		// The password changes: 401 until the file has the new one.
		if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.set(func() { c.auth = "edge:new"; c.apps["/c"] = app("/c") })
		c.cut()
		after(10 * time.Second)
		s.is(t, "with the new password", append(append([]string{}, whole...), "/c")...)
		s.status(t, "with the new password", watch.Current)
	})
}

func TestCredentialsDoNotFollowARedirectToAStranger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	prepare := func(c *cluster, config *Config) {
		withApp(c, config)
		config.URLs = config.URLs[:2]
		config.Username, config.PasswordFile = "edge", file
		c.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v2/events" || r.Host == "m3:8080" {
				return false
			}
			http.Redirect(w, r, "http://m3:8080/v2/events", http.StatusFound)
			return true
		}
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(20 * time.Second)
		if c.count("/v2/events") == 0 || len(c.shown("m1:8080")) == 0 {
			t.Fatal("no redirect, no credentials: the test tests nothing")
		}
		if seen := c.shown("m3:8080"); len(seen) != 0 {
			t.Errorf("a stranger was shown %v", seen)
		}
	})
}

func TestOneOfThreeMembersDownAtStart(t *testing.T) {
	prepare := func(c *cluster, config *Config) {
		withApp(c, config)
		c.members["m1:8080"] = nil
		c.leader = "m2:8080"
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(time.Second)
		s.is(t, "at start", whole...)
		s.status(t, "at start", watch.Current)
	})
}

func TestFaultsLeaveTheLastGoodPartAndRecoveryIsByItself(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"401":             answer(401, "<html>"),
		"403":             answer(403, "<html>"),
		"404":             answer(404, "<html>not found</html>"),
		"500":             answer(500, `{"message":"java.lang.NullPointerException"}`),
		"502":             answer(502, `{"message":"Could not determine the current leader"}`),
		"truncated JSON":  answer(200, `{"apps":[{"id":"/a"`),
		"null":            answer(200, `{"apps":null,"app":null}`),
		"HTML":            answer(200, `<html>login</html>`),
		"empty":           answer(200, ``),
		"no answer":       func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"connection lost": func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
				after(5 * time.Second)
				p, _ := s.now()
				c.set(func() { c.fault = fault; c.apps["/c"] = app("/c", "v1:33001:TASK_RUNNING:alive") })
				c.send("api_post_event", `{"appDefinition":{"id":"/c"}}`)
				c.send("status_update_event", `{"appId":"/a","taskId":"t9","taskStatus":"TASK_RUNNING"}`)
				after(6 * time.Second)
				s.status(t, "during the fault", watch.Stale)
				c.cut()
				after(5 * time.Minute)
				s.is(t, "during the fault", whole...)
				state := s.status(t, "during the fault", watch.Stale)
				if state.LastError == "" || state.Age(time.Now()) < 4*time.Minute {
					t.Errorf("%+v", state)
				}
				if q, _ := s.now(); q.Apps["/a"] != p.Apps["/a"] {
					t.Error("the app changed")
				}
				c.set(func() { c.fault = nil })
				after(5 * time.Second)
				s.is(t, "5 s after", append(append([]string{}, whole...), "/c v1 10.0.0.1:33001 passing")...)
				s.status(t, "5 s after", watch.Current)
			})
		})
	}
}

func TestFailedReadOfOneAppIsNeverForgotten(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() {
			c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:alive")
			c.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/v2/apps/a" {
					w.WriteHeader(500)
					return true
				}
				return false
			}
		})
		c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_RUNNING"}`)
		after(3 * time.Second)
		s.is(t, "read with all the others", whole[0], "/a t2 10.0.0.1:31002 TASK_GONE", whole[2])
		s.status(t, "read with all the others", watch.Current)
	})
}

func TestLeaderChangeWithLostHealthResultsKeepsTheVerdicts(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() {
			c.leader = "m2:8080"
			c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:none", "t2:31002:TASK_RUNNING:none")
			c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:none")
		})
		c.cut()
		after(5 * time.Minute)
		s.is(t, "results lost", whole...)
		if state := s.status(t, "results lost", watch.Current); !strings.Contains(state.Detail, "events from m2:8080") || !strings.Contains(state.Detail, "leader m2:8080") {
			t.Error(state.Detail)
		}
	})
}

func TestVerdictsAndAddressesComeBackFromTheSavedPart(t *testing.T) {
	saved := &watch.Part{Source: watch.Source{Kind: watch.Marathon, Name: "m1:8080"}}
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		p, _ := s.now()
		saved.Apps = p.Apps
	})
	prepare := func(c *cluster, config *Config) {
		config.Saved = saved
		c.apps["/a"] = app("/a", "t1:31001:TASK_RUNNING:none", "t2::TASK_UNREACHABLE:none")
		c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:none")
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		s.is(t, "after a restart", whole...)
	})
}

func TestSuddenlyEmptyListIsHeldBackUntilConfirmed(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		var full map[string]string
		c.set(func() { full = c.apps })
		c.set(func() { c.leader, c.apps = "m2:8080", map[string]string{} })
		c.cut()
		after(time.Second)
		s.is(t, "empty after a leader change", whole...)
		if state := s.status(t, "empty after a leader change", watch.Stale); state.Held != 3 {
			t.Errorf("%+v", state)
		}
		c.set(func() { c.apps = full })
		after(5 * time.Second)
		s.is(t, "it was nothing", whole...)
		if state := s.status(t, "it was nothing", watch.Current); state.Held != 0 {
			t.Errorf("%+v", state)
		}
		c.set(func() { c.leader, c.apps = "m1:8080", map[string]string{} })
		c.cut()
		after(10 * time.Second)
		s.is(t, "confirmed", "")
		s.status(t, "confirmed", watch.Current)
	})
}

func TestDeletedAppsAreGoneAtOnceWithoutTrouble(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { delete(c.apps, "/a") })
		c.send("app_terminated_event", `{"appId":"/a"}`)
		after(betweenParts)
		s.is(t, "deleted", whole[2])
	})
}

func TestBurstOfEventsStaysCheap(t *testing.T) {
	prepare := func(c *cluster, config *Config) {
		for i := range 200 {
			id := fmt.Sprintf("/app%d", i)
			c.apps[id] = app(id, fmt.Sprintf("app%d.1:31001:TASK_RUNNING:alive", i))
		}
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		lists, parts := c.count("/v2/apps"), s.count()
		for second := range 10 {
			for i := range 1000 {
				c.send("status_update_event", fmt.Sprintf(`{"appId":"/app%d","taskId":"app%d.%d","taskStatus":"TASK_RUNNING"}`, i%200, i%200, second+2))
				if i%10 == 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}
		c.set(func() { c.apps["/app7"] = app("/app7") })
		c.send("status_update_event", `{"appId":"/app7","taskId":"app7.1","taskStatus":"TASK_KILLED"}`)
		after(betweenParts)
		if p, _ := s.now(); len(p.Apps["/app7"].Tasks) != 0 {
			t.Error("a killed task waits for the burst")
		}
		after(2 * time.Second)
		single := c.singleReads()
		t.Logf("10,000 events in 10 s: %d reads of single apps, %d of all, %d parts", single, c.count("/v2/apps")-lists, s.count()-parts)
		if n := c.count("/v2/apps") - lists; n > 14 {
			t.Errorf("%d reads of everything", n)
		}
		if single > 13*readsPerSecond {
			t.Errorf("%d reads of single apps", single)
		}
	})
}

func TestHugeEventIsRead(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		streams := c.count("/v2/events")
		c.set(func() { c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:alive") })
		c.send("deployment_success", fmt.Sprintf(`{"plan":{"original":{"x":%q},"steps":[{"actions":[{"app":"/b"}]}]}}`, strings.Repeat("x", 7_500_000)))
		after(time.Second)
		s.is(t, "after 7.5 MB", whole[0], whole[1], "/b u1 10.0.0.1:32001 passing")
		if c.count("/v2/events") != streams {
			t.Error("the stream was lost")
		}
	})
}

func TestMarathonWithoutEventStreamIsPolled(t *testing.T) {
	prepare := func(c *cluster, config *Config) {
		withApp(c, config)
		c.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/events" {
				http.NotFound(w, r)
				return true
			}
			return false
		}
	}
	watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
		after(time.Minute)
		s.status(t, "polling", watch.Current)
		c.set(func() { delete(c.apps, "/b") })
		after(5 * time.Second)
		s.is(t, "polled", whole[:2]...)
		if n := c.count("/v2/apps"); n > 20 {
			t.Errorf("%d reads in 65 s", n)
		}
	})
}

func TestUnreadableDocumentKeepsTheAppItMayBe(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() {
			a := c.apps["/a"]
			delete(c.apps, "/a")
			c.apps["odd"] = `{"id":null,"tasks":[]}`
			c.apps["/c"] = app("/c")
			c.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/v2/apps/a" {
					fmt.Fprintf(w, `{"app":%s}`, a)
					return true
				}
				return false
			}
		})
		after(2 * time.Minute)
		s.is(t, "one document is odd", append(append([]string{}, whole...), "/c")...)
		p, _ := s.now()
		if len(p.Findings) != 1 || p.Findings[0].Code != "invalid-document" {
			t.Errorf("%v", p.Findings)
		}
		c.set(func() { c.fault = nil })
		after(2 * time.Minute)
		s.is(t, "and the app is gone", whole[2], "/c")
		s.status(t, "and the app is gone", watch.Current)
	})
}

func TestWatcherEndsWithItsContext(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, fault := range []func(http.ResponseWriter, *http.Request) bool{
		nil,
		func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
	} {
		watching(t, three, func(c *cluster, _ *Config) { c.fault = fault }, func(*testing.T, *cluster, *sink) {
			after(20 * time.Second)
		})
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines before, %d after", before, n)
	}
}
