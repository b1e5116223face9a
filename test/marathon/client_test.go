package marathon_test

import (
	"slices"
	"testing"
	"time"

	gomarathon "github.com/gambol99/go-marathon"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// An independent client, to see that the documents decode elsewhere too. It
// knows Marathon up to 1.4, so that release's shapes are what it understands in
// full.
func client(t *testing.T, cluster *marathon.Cluster) gomarathon.Marathon {
	t.Helper()
	config := gomarathon.NewDefaultConfig()
	config.URL = cluster.URL()
	config.HTTPBasicAuthUser, config.HTTPBasicPassword = "u", "p"
	config.EventsTransport = gomarathon.EventsTransportSSE
	client, err := gomarathon.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestGoMarathonDrivesTheCluster(t *testing.T) {
	for _, version := range []string{"1.4.11", "1.11.24"} {
		t.Run(version, func(t *testing.T) {
			cluster := start(t, marathon.Options{Fake: true, Version: version, Username: "u", Password: "p"})
			client := client(t, cluster)
			events, err := client.AddEventsListener(gomarathon.EventIDApplications | gomarathon.EventIDDeploymentSuccess)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the listener is attached", func() bool { return cluster.Streams() == 1 })
			app := gomarathon.NewDockerApplication().Name("/shop/web").CPU(0.1).Memory(32).Count(2).AddLabel("a", "b").AddEnv("X", "1").Command("serve")
			app.Container.Docker.Container("python").Bridged().ExposePort(gomarathon.PortMapping{ContainerPort: 80, HostPort: 0, ServicePort: 9000, Protocol: "tcp"})
			app.AddHealthCheck(gomarathon.NewDefaultHealthCheck().SetPortIndex(0).SetPath("/").SetMaxConsecutiveFailures(3))
			if _, err := client.CreateApplication(app); err != nil {
				t.Fatal(err)
			}
			if err := client.WaitOnApplication("/shop/web", patience); err != nil {
				t.Fatal(err)
			}
			read, err := client.Application("/shop/web")
			if err != nil {
				t.Fatal(err)
			}
			if *read.Instances != 2 || read.TasksHealthy != 2 || (*read.Labels)["a"] != "b" || (*read.Env)["X"] != "1" || len(read.Tasks) != 2 {
				t.Errorf("app %+v", read)
			}
			task := read.Tasks[0]
			if task.Host != "127.0.0.1" || len(task.Ports) != 1 || task.State != "TASK_RUNNING" || !task.HealthCheckResults[0].Alive || task.IPAddresses[0].Protocol != "IPv4" {
				t.Errorf("task %+v", task)
			}
			if version == "1.4.11" {
				mapping := (*read.Container.Docker.PortMappings)[0]
				if read.Container.Docker.Network != "BRIDGE" || mapping.ServicePort != 9000 || !slices.Equal(read.Ports, []int{9000}) {
					t.Errorf("networking %+v, ports %v", read.Container.Docker, read.Ports)
				}
			}
			if healthy, err := client.ApplicationOK("/shop/web"); err != nil || !healthy {
				t.Errorf("healthy %v, %v", healthy, err)
			}
			seen := map[string]bool{}
			for !seen["status_update_event"] || !seen["health_status_changed_event"] || !seen["deployment_success"] {
				select {
				case event := <-events:
					seen[event.Name] = true
				case <-time.After(patience):
					t.Fatalf("events %v", seen)
				}
			}
			if _, err := client.ScaleApplicationInstances("/shop/web", 3, false); err != nil {
				t.Fatal(err)
			}
			deployed(t, cluster)
			tasks, err := client.AllTasks(&gomarathon.AllTasksOpts{Status: "running"})
			if err != nil || len(tasks.Tasks) != 3 || tasks.Tasks[0].ServicePorts[0] != 9000 {
				t.Errorf("tasks %+v, %v", tasks, err)
			}
			if err := client.KillTasks([]string{tasks.Tasks[0].ID}, &gomarathon.KillTaskOpts{Scale: true}); err != nil {
				t.Errorf("kill: %v", err)
			}
			deployed(t, cluster)
			if deployments, err := client.Deployments(); err != nil || len(deployments) != 0 {
				t.Errorf("deployments %v, %v", deployments, err)
			}
			if queue, err := client.Queue(); err != nil || len(queue.Items) != 0 {
				t.Errorf("queue %v, %v", queue, err)
			}
			if info, err := client.Info(); err != nil || info.Version != version || info.Leader == "" {
				t.Errorf("info %+v, %v", info, err)
			}
			if leader, err := client.Leader(); err != nil || "http://"+leader != cluster.URL() {
				t.Errorf("leader %q, %v", leader, err)
			}
			if group, err := client.Group("/shop"); err != nil || len(group.Apps) != 1 {
				t.Errorf("group %+v, %v", group, err)
			}
			if versions, err := client.ApplicationVersions("/shop/web"); err != nil || len(versions.Versions) < 2 {
				t.Errorf("versions %+v, %v", versions, err)
			}
			if _, err := client.Application("/nothing"); err == nil {
				t.Error("an unknown app was found")
			}
			if _, err := client.DeleteApplication("/shop/web", false); err != nil {
				t.Fatal(err)
			}
			deployed(t, cluster)
			if message, err := client.AbdicateLeader(); err != nil || message != "Leadership abdicated" {
				t.Errorf("abdication %q, %v", message, err)
			}
		})
	}
}

func TestGoMarathonDecodesADeploymentInProgress(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, FakeDelay: 100 * patience})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"x"}`)
	deployments, err := client(t, cluster).Deployments()
	if err != nil {
		t.Fatal(err)
	}
	d := deployments[0]
	if d.TotalSteps != 2 || d.CurrentStep != 2 || d.Steps[0][0].Action != "StartApplication" || d.CurrentActions[0].Action != "ScaleApplication" || d.AffectedApps[0] != "/a" {
		t.Errorf("deployment %+v", d)
	}
}
