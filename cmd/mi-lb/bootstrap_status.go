package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/platform"
)

func bootstrapStatusCommand() *cobra.Command {
	var b bootstrap
	var output outputFlag
	command := &cobra.Command{
		Use:   "status",
		Short: "Show machines, units and health, as they are now",
		Long: `Shows every machine with its system and clock, and every unit of the platform with
its state, since when, how often systemd restarted it, and whether its component is
healthy at this moment. It changes nothing, and exits 1 if a machine is not reached
or a component is not healthy.`,
		Example: "  mi-lb bootstrap status -i inventory/production --limit dc1",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			if err := s.look(command.Context()); err != nil {
				return err
			}
			report := s.status(apply.Verify(command.Context(), s.survey, s.fleet, platform.Components(), s.scope, s.forks, 0))
			if err := output.print(s.stdout, report, report.text); err != nil {
				return err
			}
			if !report.OK {
				return fmt.Errorf("not everything is healthy")
			}
			return nil
		},
	}
	b.add(command)
	output.add(command)
	return command
}

// hostStatus is one machine.
type hostStatus struct {
	Node       string        `json:"node"`
	Datacenter string        `json:"datacenter"`
	Reached    bool          `json:"reached"`
	Why        string        `json:"why,omitempty"`
	System     string        `json:"system,omitempty"`
	Clock      time.Duration `json:"clock_ahead_ns"`
	Units      []unitStatus  `json:"units"`
}

// unitStatus is one unit of a component.
type unitStatus struct {
	Component string    `json:"component"`
	Unit      string    `json:"unit"`
	Active    string    `json:"active"`
	Since     time.Time `json:"since,omitzero"`
	Restarts  int       `json:"restarts"`
	Healthy   bool      `json:"healthy"`
	Message   string    `json:"message,omitempty"`
}

// platformStatus is what bootstrap status shows.
type platformStatus struct {
	OK       bool          `json:"ok"`
	Machines []hostStatus  `json:"machines"`
	Checks   []apply.Check `json:"checks"`
}

func (s *session) status(checks []apply.Check) platformStatus {
	report := platformStatus{OK: true, Machines: []hostStatus{}, Checks: checks}
	byPlace := map[string]apply.Check{}
	for i := range checks {
		checks[i].Message = s.mask.Mask(checks[i].Message)
		byPlace[checks[i].Component+" "+checks[i].Node] = checks[i]
		report.OK = report.OK && checks[i].OK
	}
	for _, n := range s.cluster.Nodes() {
		if s.scope.Nodes != nil && !containsString(s.scope.Nodes, n.Name) {
			continue
		}
		h := hostStatus{Node: n.Name, Datacenter: n.Datacenter, Units: []unitStatus{}}
		f := s.survey.Facts(n.Name)
		if f == nil {
			report.OK = false
			if err := s.survey.Unreachable()[n.Name]; err != nil {
				h.Why = s.mask.Mask(err.Error())
			}
			report.Machines = append(report.Machines, h)
			continue
		}
		h.Reached, h.System, h.Clock = true, f.System.Name, f.Offset
		for _, part := range s.survey.Parts(n.Name) {
			for _, u := range part.Units {
				if u.State != desired.Running {
					continue
				}
				found, check := f.Units[u.Name], byPlace[part.Component+" "+n.Name]
				h.Units = append(h.Units, unitStatus{
					Component: part.Component, Unit: u.Name, Active: found.Active, Since: found.Since, Restarts: found.Restarts, Healthy: check.OK, Message: check.Message,
				})
			}
		}
		report.Machines = append(report.Machines, h)
	}
	return report
}

func containsString(all []string, s string) bool {
	for _, x := range all {
		if x == s {
			return true
		}
	}
	return false
}

func (r platformStatus) text() string {
	var rows [][]string
	for _, h := range r.Machines {
		if !h.Reached {
			rows = append(rows, []string{h.Node, h.Datacenter, "not reached", "", "", firstLineOf(h.Why)})
			continue
		}
		rows = append(rows, []string{h.Node, h.Datacenter, h.System, "", "", clockText(h.Clock)})
		for _, u := range h.Units {
			health := "healthy"
			if !u.Healthy {
				health = firstLineOf(u.Message)
			}
			active := u.Active
			if u.Restarts > 0 {
				active += fmt.Sprintf(" (%d restarts)", u.Restarts)
			}
			since := ""
			if !u.Since.IsZero() {
				since = u.Since.Local().Format("2006-01-02 15:04:05")
			}
			rows = append(rows, []string{"", "", "  " + u.Unit, active, since, health})
		}
	}
	return columns([]string{"MACHINE", "DATACENTER", "UNIT", "STATE", "SINCE", ""}, rows)
}

func firstLineOf(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

func clockText(d time.Duration) string {
	if d.Abs() < time.Second {
		return ""
	}
	return fmt.Sprintf("clock %s off", d.Round(time.Second/10))
}
