package render

// NextWorker is the backend by which a worker that was replaced passes the last request of
// a connection on to the worker of now. Its servers are not in service until somebody who
// is about to ask for a reload puts them there.
const NextWorker = internal + "next-worker"

// Each kind of frontend that speaks HTTP has one server of NextWorker: a socket of its own,
// so that the request goes on where it would have begun.
const (
	toHTTP  = "http"
	toHTTPS = "https"
	toAppID = "app-id"
	toRange = "range"
	toPorts = "ports"
)

// NextWorkerServers are the names of all servers that NextWorker can have.
func NextWorkerServers() []string { return []string{toHTTP, toHTTPS, toAppID, toRange, toPorts} }

// handoverView is one server of NextWorker, and for whom it is.
type handoverView struct {
	Name, Address string
	// Frontend is the name of the frontend, or what the names begin with.
	Frontend string
	Prefix   bool
	TLS      bool
}

func (v *view) handovers() []handoverView {
	s := v.settings
	var all []handoverView
	add := func(when bool, h handoverView) {
		if !when {
			return
		}
		if h.Address == "" {
			h.Address = s.Handover + "-" + h.Name
		}
		all = append(all, h)
	}
	add(len(s.HTTP) > 0, handoverView{Name: toHTTP, Frontend: internal + "http"})
	add(len(s.HTTPS) > 0 && s.Certificates != "", handoverView{Name: toHTTPS, Frontend: internal + "https", TLS: true})
	add(len(s.AppID) > 0, handoverView{Name: toAppID, Frontend: internal + "app-id"})
	add(len(s.PortRange) > 0, handoverView{Name: toRange, Frontend: internal + "http-ports", Address: s.Ports})
	add(len(v.httpPorts()) > 0, handoverView{Name: toPorts, Frontend: internal + "port-", Prefix: true})
	return all
}

// httpPorts are those with a frontend of their own that speak HTTP.
func (v *view) httpPorts() []portView {
	var all []portView
	for _, p := range v.ports {
		if p.HTTP {
			all = append(all, p)
		}
	}
	return all
}
