// Command testserver is what runs in the containers of tests. It answers every
// HTTP request with its -text on each of its ports. /health?ok=false makes its
// HEALTHCHECK ("testserver -probe") fail, ok=true succeed. A request for /hold
// is answered after the next one for /release; /holding says how many wait, by
// method. After SIGTERM it serves for -grace, or until /end is asked for, then
// finishes what it has; before it ends it prints one line of JSON, [Farewell].
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// unhealthy is the file whose existence makes the probe fail.
const unhealthy = "/unhealthy"

func main() {
	listen := flag.String("listen", ":80", "comma-separated `addresses` to listen on")
	text := flag.String("text", "ok", "what to answer")
	grace := flag.Duration("grace", 0, "how long to go on serving after SIGTERM")
	life := flag.Duration("life", 0, "how long to live; 0 is until told to end")
	code := flag.Int("code", 0, "the exit code after -life")
	probe := flag.Bool("probe", false, "run as HEALTHCHECK: exit 1 if the server was made unhealthy")
	flag.Parse()
	if *probe {
		if _, err := os.Stat(unhealthy); err == nil {
			fmt.Println("told to fail\nby /health")
			os.Exit(1)
		}
		return
	}
	if *life > 0 {
		time.AfterFunc(*life, func() { os.Exit(*code) })
	}
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &server{text: *text, held: make(chan struct{}), holding: map[string]int{}, end: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", setHealth)
	mux.HandleFunc("/hold", s.hold)
	mux.HandleFunc("/release", s.release)
	mux.HandleFunc("/holding", s.sayHolding)
	mux.HandleFunc("/end", s.endSoon)
	mux.HandleFunc("/", s.answer)
	var servers []*http.Server
	for _, address := range strings.Split(*listen, ",") {
		h := &http.Server{Addr: address, Handler: mux}
		servers = append(servers, h)
		go func() {
			if err := h.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}()
	}
	<-told.Done()
	s.told()
	select {
	case <-time.After(*grace):
	case <-s.end:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, h := range servers {
		all.Go(func() {
			if err := h.Shutdown(ctx); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	all.Wait()
	s.sayFarewell()
}

// Farewell says what was asked of "/", mostly after the signal to end.
type Farewell struct {
	// First is when the first request of all began.
	First time.Time
	// Told is when the signal came.
	Told time.Time
	// Since counts the requests that began after it, the last of them at Last.
	Since int
	Last  time.Time
}

type server struct {
	text string
	end  chan struct{}
	once sync.Once

	mu       sync.Mutex
	farewell Farewell
	held     chan struct{}
	holding  map[string]int // by method
}

func (s *server) told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.farewell.Told = time.Now()
}

func (s *server) sayFarewell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(s.farewell)
}

func (s *server) answer(w http.ResponseWriter, _ *http.Request) {
	s.count(time.Now())
	fmt.Fprintln(w, s.text)
}

func (s *server) count(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.farewell
	if f.First.IsZero() {
		f.First = now
	}
	if !f.Told.IsZero() {
		f.Since++
		f.Last = now
	}
}

func (s *server) hold(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	held := s.held
	s.holding[r.Method]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holding[r.Method]--
	}()
	select {
	case <-held:
		s.answer(w, r)
	case <-r.Context().Done():
	}
}

func (s *server) release(http.ResponseWriter, *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.held)
	s.held = make(chan struct{})
}

func (s *server) sayHolding(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s.holding) // the client's loss
}

func (s *server) endSoon(http.ResponseWriter, *http.Request) { s.once.Do(func() { close(s.end) }) }

func setHealth(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.FormValue("ok") == "true" {
		err = os.Remove(unhealthy)
	} else {
		err = os.WriteFile(unhealthy, nil, 0o600)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
