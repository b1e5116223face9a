package marathon

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

const (
	readA         = `{"plan":{"steps":[{"actions":[{"app":"/a"}]}]}}`
	oneTask       = "t1:31001:TASK_RUNNING:alive"
	otherTask     = "t2:31002:TASK_RUNNING:alive"
	otherHasEnded = "/a t2 10.0.0.1:31002 "
)

func TestTaskThatHasEndedStaysForAWhile(t *testing.T) {
	for name, end := range map[string]struct {
		how   func(c *cluster)
		tasks []string
		state string
	}{
		"by an event": {
			func(c *cluster) {
				c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_FAILED"}`)
			}, []string{oneTask}, "TASK_FAILED"},
		"by an event after the read that lacks it": {
			func(c *cluster) {
				c.send("deployment_info", readA)
				synctest.Wait()
				c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_KILLED"}`)
			}, []string{oneTask}, "TASK_KILLED"},
		"by a read of the app": {
			func(c *cluster) { c.send("deployment_info", readA) }, []string{oneTask}, "TASK_GONE"},
		"by a read of everything": {
			func(c *cluster) { c.send("group_change_success", `{"groupId":"/"}`) }, []string{oneTask}, "TASK_GONE"},
		"listed as ended, without ports": {
			func(c *cluster) { c.send("group_change_success", `{"groupId":"/"}`) },
			[]string{oneTask, "t2::TASK_FINISHED:alive"}, "TASK_FINISHED"},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
				after(5 * time.Second)
				before, _ := s.now()
				c.set(func() { c.apps["/a"] = app("/a", end.tasks...) })
				end.how(c)
				after(time.Second)
				s.is(t, "ended", whole[0], otherHasEnded+end.state, whole[2])
				parts := s.count()
				after(119*time.Second - 2*betweenParts)
				s.is(t, "just before its time is over", whole[0], otherHasEnded+end.state, whole[2])
				if n := s.count() - parts; n != 0 {
					t.Errorf("published %d times meanwhile", n)
				}
				after(time.Second)
				s.is(t, "afterwards", whole[0], whole[2])
				if n := s.count() - parts; n != 1 {
					t.Errorf("published %d times to take it away", n)
				}
				now, _ := s.now()
				if now.Apps["/b"] != before.Apps["/b"] {
					t.Error("another app changed")
				}
				after(5 * time.Minute)
				if n := s.count() - parts; n != 1 {
					t.Errorf("published %d times since", n)
				}
			})
		})
	}
}

func TestHowLongEndedTasksStayCanBeSet(t *testing.T) {
	watching(t, three, func(c *cluster, config *Config) { withApp(c, config); config.Intervals.Linger = time.Second }, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a", oneTask) })
		c.send("deployment_info", readA)
		after(500 * time.Millisecond)
		s.is(t, "ended", whole[0], otherHasEnded+"TASK_GONE", whole[2])
		after(time.Second)
		s.is(t, "afterwards", whole[0], whole[2])
	})
}

func TestEndedTaskGivesWayToTheTaskThatHasItsAddress(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(c *cluster)
		want []string
	}{
		"of another app": {func(c *cluster) {
			c.apps["/b"] = app("/b", "u1:32001:TASK_RUNNING:dead", "u2:31002:TASK_RUNNING:alive")
		}, []string{whole[0], whole[2], "/b u2 10.0.0.1:31002 passing"}},
		"of its own app, only staged": {func(c *cluster) {
			c.apps["/a"] = app("/a", oneTask, "t3:31002:TASK_STAGING:none")
		}, []string{whole[0], "/a t3 10.0.0.1:31002 TASK_STAGING", whole[2]}},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, three, withApp, func(t *testing.T, cl *cluster, s *sink) {
				after(5 * time.Second)
				// Marathon goes on listing it.
				cl.set(func() { cl.apps["/a"] = app("/a", oneTask, "t2:31002:TASK_FAILED:none") })
				cl.send("group_change_success", `{}`)
				after(2 * time.Second)
				s.is(t, "ended", whole[0], otherHasEnded+"TASK_FAILED", whole[2])
				cl.set(func() { c.set(cl) })
				cl.send("group_change_success", `{}`)
				after(2 * time.Second)
				s.is(t, "taken", c.want...)
				p, _ := s.now()
				parts := s.count()
				cl.send("group_change_success", `{}`)
				after(5 * time.Minute)
				s.is(t, "later", c.want...)
				if q, _ := s.now(); s.count() != parts || q.Apps["/a"] != p.Apps["/a"] {
					t.Error("published without a change")
				}
			})
		})
	}
}

func TestStagedTaskIsKnownBeforeItRuns(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		for _, step := range []struct{ task, want string }{
			{"t3::TASK_STAGING:none", ""},
			{"t3:31003:TASK_STAGING:none", "/a t3 10.0.0.1:31003 TASK_STAGING"},
			{"t3:31003:TASK_STARTING:none", "/a t3 10.0.0.1:31003 TASK_STARTING"},
			{"t3:31003:TASK_RUNNING:alive", "/a t3 10.0.0.1:31003 passing"},
		} {
			c.set(func() { c.apps["/a"] = app("/a", oneTask, otherTask, step.task) })
			c.send("status_update_event", `{"appId":"/a","taskId":"t3","taskStatus":"TASK_STAGING"}`)
			after(time.Second)
			want := []string{whole[0], whole[1], step.want, whole[2]}
			if step.want == "" {
				want = whole
			}
			s.is(t, step.task, want...)
		}
	})
}

func TestTaskThatIsListedAgainIsAlive(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a", oneTask) })
		c.send("deployment_info", readA)
		after(time.Minute)
		s.is(t, "gone", whole[0], otherHasEnded+"TASK_GONE", whole[2])
		c.set(func() { c.apps["/a"] = app("/a", oneTask, otherTask) })
		c.send("deployment_info", readA)
		after(3 * time.Minute)
		s.is(t, "back", whole...)
		c.set(func() { c.apps["/a"] = app("/a", oneTask) })
		c.send("deployment_info", readA)
		after(119 * time.Second)
		s.is(t, "its time begins anew", whole[0], otherHasEnded+"TASK_GONE", whole[2])
	})
}

func TestFreshTaskIsNotHeldUpByOneThatHasEnded(t *testing.T) {
	watching(t, three, func(c *cluster, _ *Config) { c.apps["/a"] = app("/a", oneTask) }, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a", "t2:31002:TASK_RUNNING:none") })
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_FAILED"}`)
		after(time.Second)
		s.is(t, "the only one", "/a t1 10.0.0.1:31001 TASK_FAILED", "/a t2 10.0.0.1:31002 unknown")
	})
}

func TestEndedTasksOfADeletedAppGoWithIt(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a") })
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_KILLED"}`)
		c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_KILLED"}`)
		after(time.Second)
		s.is(t, "scaled to nothing", "/a t1 10.0.0.1:31001 TASK_KILLED", otherHasEnded+"TASK_KILLED", whole[2])
		c.set(func() { delete(c.apps, "/a") })
		c.send("app_terminated_event", `{"appId":"/a"}`)
		after(time.Second)
		s.is(t, "deleted", whole[2])
		c.set(func() { c.apps["/a"] = app("/a", "t3:31001:TASK_RUNNING:alive") })
		c.send("api_post_event", `{"appDefinition":{"id":"/a"}}`)
		after(time.Second)
		s.is(t, "and created again", "/a t3 10.0.0.1:31001 passing", whole[2])
	})
}

func TestEndedTasksAreNeitherHeldNorMissed(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a") })
		c.send("status_update_event", `{"appId":"/a","taskId":"t1","taskStatus":"TASK_KILLED"}`)
		c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_KILLED"}`)
		after(time.Second)
		ended := []string{"/a t1 10.0.0.1:31001 TASK_KILLED", otherHasEnded + "TASK_KILLED"}
		// Two of three tasks have ended. That they are not listed is no reason to
		// doubt the list.
		c.cut()
		after(time.Second)
		s.is(t, "after a reconnect", ended[0], ended[1], whole[2])
		if state := s.status(t, "after a reconnect", watch.Current); state.Held != 0 {
			t.Errorf("%+v", state)
		}
		c.set(func() { c.leader, c.apps = "m2:8080", map[string]string{} })
		c.cut()
		after(time.Second)
		s.is(t, "empty after a leader change", ended[0], ended[1], whole[2])
		if state := s.status(t, "empty after a leader change", watch.Stale); state.Held != 1 {
			t.Errorf("%+v", state)
		}
		after(10 * time.Second)
		s.is(t, "confirmed", "")
	})
}

func TestTasksAreHeldBackAsTheyWere(t *testing.T) {
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.leader, c.apps = "m2:8080", map[string]string{"/a": app("/a"), "/b": app("/b")} })
		c.cut()
		after(time.Second)
		s.is(t, "empty after a leader change", whole...)
		if state := s.status(t, "empty after a leader change", watch.Stale); state.Held != 3 {
			t.Errorf("%+v", state)
		}
		after(3 * time.Second)
		s.is(t, "confirmed", "/a t1 10.0.0.1:31001 TASK_GONE", otherHasEnded+"TASK_GONE", "/b u1 10.0.0.1:32001 TASK_GONE")
		s.status(t, "confirmed", watch.Current)
		after(2 * time.Minute)
		s.is(t, "later", "/a", "/b")
	})
}

func TestEndedTasksOfTheSavedPartStayForAnotherWhile(t *testing.T) {
	saved := &watch.Part{Source: watch.Source{Kind: watch.Marathon, Name: "m1:8080"}}
	watching(t, three, withApp, func(t *testing.T, c *cluster, s *sink) {
		after(5 * time.Second)
		c.set(func() { c.apps["/a"] = app("/a", oneTask) })
		c.send("status_update_event", `{"appId":"/a","taskId":"t2","taskStatus":"TASK_KILLED"}`)
		after(time.Minute)
		p, _ := s.now()
		saved.Apps = p.Apps
	})
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"Marathon answers": nil,
		"Marathon is down": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true },
	} {
		t.Run(name, func(t *testing.T) {
			prepare := func(c *cluster, config *Config) {
				withApp(c, config)
				c.apps["/a"], c.fault, config.Saved = app("/a", oneTask), fault, saved
			}
			watching(t, three, prepare, func(t *testing.T, c *cluster, s *sink) {
				after(119 * time.Second)
				if p, _ := s.now(); p != nil {
					s.is(t, "after a restart", whole[0], otherHasEnded+"TASK_KILLED", whole[2])
				}
				after(2 * time.Second)
				s.is(t, "later", whole[0], whole[2])
			})
		})
	}
}

func TestDefinitionWithOtherPortsKeepsTheAddressesOfEndedTasks(t *testing.T) {
	const task = `{"id":"t","host":"agent1","ports":[31000,31001],` + running + `}`
	before, _ := built(t, `{"id":"/a","ports":[9000,9001],"tasks":[`+task+`]}`, nil)
	for ports, want := range map[string]string{
		"9000":           "10.0.0.1:31000",
		"9000,9001,9002": "10.0.0.1:31000 10.0.0.1:31001 invalid AddrPort",
	} {
		app, _ := built(t, `{"id":"/a","ports":[`+ports+`],"tasks":[]}`, before)
		if len(app.Tasks) != 1 {
			t.Fatalf("ports %s: %+v", ports, app.Tasks)
		}
		got := ""
		for i, a := range app.Tasks[0].Addresses {
			if i > 0 {
				got += " "
			}
			got += a.String()
		}
		if got != want {
			t.Errorf("ports %s: %s", ports, got)
		}
	}
	if len(before.Tasks[0].Addresses) != 2 {
		t.Error("the published app was changed")
	}
}
