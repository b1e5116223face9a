package admin

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

type pageData struct {
	Version string
	Ready   bool
	Waiting string
	HAProxy haproxy.Status
	Sources []Source
	Table   *routing.Table
}

func (a *api) page(w http.ResponseWriter, _ *http.Request) {
	data := pageData{Version: a.version, HAProxy: a.edge.Status(), Table: a.edge.Table()}
	data.Ready, data.Waiting = a.edge.Ready()
	for _, state := range a.edge.States() {
		data.Sources = append(data.Sources, Source{State: state, AgeSeconds: state.Age(time.Now()).Seconds()})
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, data); err != nil {
		a.log.Error("render page", "error", err)
		http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// Everything is in the page itself; nothing a service is called can load more.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = w.Write(b.Bytes())
}
