package marathon

import "fmt"

// servicePortsIn are the service ports that apps have.
func servicePortsIn(apps map[string]*Definition) map[int]bool {
	used := map[int]bool{}
	for _, app := range apps {
		for _, port := range app.servicePorts() {
			used[port] = true
		}
	}
	return used
}

// assignServicePorts gives service ports to the ports of d that ask for any:
// those that the app had before, and then the lowest that is not used.
func (c *Cluster) assignServicePorts(d, before *Definition, used func(port int) bool) error {
	asked := map[int]bool{}
	for _, port := range d.servicePorts() {
		asked[port] = true
	}
	var had []int
	if before != nil {
		for _, port := range before.servicePorts() {
			if port != 0 && !asked[port] {
				had = append(had, port)
			}
		}
	}
	next := func() (int, error) {
		if len(had) > 0 {
			port := had[0]
			had = had[1:]
			return port, nil
		}
		for port := c.options.LocalPortMin; port < c.options.LocalPortMax; port++ {
			if !asked[port] && !used(port) {
				asked[port] = true
				return port, nil
			}
		}
		return 0, message(422, "All ports in the range [%d-%d) are already in use", c.options.LocalPortMin, c.options.LocalPortMax)
	}
	assign := func(port *int) (err error) {
		if *port == 0 {
			*port, err = next()
		}
		return err
	}
	if d.mode() == modeHost {
		for i := range d.PortDefinitions {
			if err := assign(&d.PortDefinitions[i].Port); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range d.Container.PortMappings {
		if err := assign(&d.Container.PortMappings[i].ServicePort); err != nil {
			return err
		}
	}
	return nil
}

// checkServicePorts refuses service ports of a container that another app has,
// as most releases of Marathon do; in host networking none does.
func checkServicePorts(d *Definition, apps map[string]*Definition) error {
	if d.Container == nil {
		return nil
	}
	var v violations
	for _, mapping := range d.Container.PortMappings {
		for _, id := range sortedKeys(apps) {
			other := apps[id]
			if id == d.ID || other.Container == nil || mapping.ServicePort == 0 {
				continue
			}
			for _, taken := range other.Container.PortMappings {
				if taken.ServicePort == mapping.ServicePort {
					v.add("/", "%s", fmt.Sprintf("Requested service port %d conflicts with a service port in app %s", mapping.ServicePort, id))
				}
			}
		}
	}
	if err := v.error(); err != nil {
		return err
	}
	return nil
}
