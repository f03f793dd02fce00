package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"frond/internal/metrics"
	"frond/internal/status"
)

// Serve answers on the unix socket until ctx ends, then lets the answers
// under way finish. A socket that another agent answers on is refused with
// ErrInUse, one that nobody answers on any more is replaced.
func Serve(ctx context.Context, socket string, b Backend, log *slog.Logger) error {
	listener, err := Listen(socket)
	if err != nil {
		return err
	}
	return ServeOn(ctx, listener, b, log)
}

// ServeOn answers on what Listen has taken, which it closes at the end.
func ServeOn(ctx context.Context, listener net.Listener, b Backend, log *slog.Logger) error {
	return answerOn(ctx, listener, Handler(b, log), log)
}

// answerOn answers within the bounds that hold for every listener.
func answerOn(ctx context.Context, listener net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       answerTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	cancel := context.AfterFunc(ctx, func() { stopped <- stop(server) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		if cancel() {
			_ = server.Close()
		}
		return fmt.Errorf("answer on %s: %w", listener.Addr(), err)
	}
	return <-stopped
}

// stop gives answers under way some time and cuts off what is left.
func stop(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop answering: %w", err), server.Close())
	}
	return nil
}

// Handler is the API without its socket, for those who may do everything.
func Handler(b Backend, log *slog.Logger) http.Handler {
	h := handler{backend: b, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, h.status)
	mux.HandleFunc("GET "+peersPath, h.peers)
	mux.HandleFunc("GET "+routesPath, h.routes)
	mux.HandleFunc("GET "+segmentsPath, h.segments)
	mux.HandleFunc("GET "+macsPath, h.macs)
	mux.HandleFunc("GET "+evpnPath, h.evpn)
	mux.HandleFunc("GET "+guardPath, h.guard)
	mux.HandleFunc("POST "+thawPath, h.thaw)
	mux.HandleFunc("GET "+gatewaysPath, h.gateways)
	mux.HandleFunc("GET "+hypervisorPath, h.hypervisor)
	mux.HandleFunc("POST "+drainPath, h.drain(true))
	mux.HandleFunc("POST "+undrainPath, h.drain(false))
	mux.HandleFunc("GET "+leasesPath, h.leases)
	mux.HandleFunc("POST "+releasePath, h.release)
	mux.HandleFunc("GET "+nodesPath, h.nodes)
	mux.HandleFunc("GET "+forwardingPath, h.forwarding)
	mux.HandleFunc("POST "+reloadPath, h.change("reload", http.StatusUnprocessableEntity, b.Reload))
	mux.HandleFunc("POST "+downPath, h.change("down", http.StatusInternalServerError, b.Down))
	mux.Handle("GET "+metricsPath, metrics.Handler(b.Vitals))
	mux.HandleFunc("/", h.unknown)
	return http.MaxBytesHandler(mux, maxRequest)
}

type handler struct {
	backend Backend
	log     *slog.Logger
}

func (h handler) status(w http.ResponseWriter, _ *http.Request) {
	snapshot := h.backend.Status()
	snapshot.Peers = orEmpty(snapshot.Peers)
	snapshot.Conditions = orEmpty(snapshot.Conditions)
	h.answer(w, http.StatusOK, snapshot)
}

func (h handler) peers(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, Peers{orEmpty(h.backend.Status().Peers)})
}

func (h handler) routes(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("prefix")
	if text == "" {
		h.answer(w, http.StatusOK, Routes{withLists(h.backend.Routes(all))})
		return
	}
	prefix, err := ParsePrefix(text)
	if err != nil {
		h.fail(w, http.StatusBadRequest, fmt.Errorf("prefix %q is none: write it as 10.0.0.0/16 or 10.0.200.1", text))
		return
	}
	h.answer(w, http.StatusOK, Routes{withLists(h.backend.Routes(prefix))})
}

func (h handler) segments(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, Segments{orEmpty(h.backend.Segments())})
}

func (h handler) macs(w http.ResponseWriter, r *http.Request) {
	h.answer(w, http.StatusOK, MACs{orEmpty(h.backend.MACs(r.URL.Query().Get("segment")))})
}

func (h handler) guard(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, h.backend.Guard())
}

func (h handler) evpn(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, EVPN{orEmpty(h.backend.EVPN())})
}

func (h handler) thaw(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	h.change("thaw", http.StatusUnprocessableEntity, func(ctx context.Context) error {
		return h.backend.Thaw(ctx, query.Get("station"), query.Get("segment"))
	})(w, r)
}

func (h handler) hypervisor(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, h.backend.Hypervisor())
}

func (h handler) gateways(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, Gateways{orEmpty(h.backend.Gateways())})
}

func (h handler) leases(w http.ResponseWriter, r *http.Request) {
	h.answer(w, http.StatusOK, Leases{orEmpty(h.backend.Leases(r.Context(), r.URL.Query().Get("segment")))})
}

func (h handler) release(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("address")
	address, err := netip.ParseAddr(text)
	if err != nil {
		h.fail(w, http.StatusBadRequest, fmt.Errorf("address %q is none: write it as 172.16.0.11", text))
		return
	}
	h.change("release", http.StatusUnprocessableEntity, func(ctx context.Context) error {
		return h.backend.Release(ctx, address)
	})(w, r)
}

func (h handler) drain(drained bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node := r.URL.Query().Get("node")
		h.change("drain", http.StatusUnprocessableEntity, func(ctx context.Context) error {
			return h.backend.Drain(ctx, node, drained)
		})(w, r)
	}
}

// change answers a POST by carrying it out. That the asker goes away does not
// interrupt it: what was asked for is done as a whole.
func (h handler) change(what string, refusal int, do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
		defer cancel()
		began := time.Now()
		if err := do(ctx); err != nil {
			h.log.Warn("request failed", "request", what, "by", asker(r), "error", err)
			h.fail(w, refusal, err)
			return
		}
		h.log.Info("request carried out", "request", what, "by", asker(r), "took", time.Since(began))
		w.WriteHeader(http.StatusNoContent)
	}
}

func (h handler) unknown(w http.ResponseWriter, r *http.Request) {
	h.fail(w, http.StatusNotFound, fmt.Errorf("this agent does not know %s %s", r.Method, r.URL.Path))
}

func (h handler) fail(w http.ResponseWriter, code int, err error) {
	h.answer(w, code, failure{err.Error()})
}

func (h handler) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil && !errors.Is(err, net.ErrClosed) {
		h.log.Debug("answer not delivered", "error", err)
	}
}

// orEmpty keeps a list a list in JSON, where nil would be null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func withLists(routes []status.Route) []status.Route {
	lists := make([]status.Route, len(routes))
	for i, r := range routes {
		r.ASPath, r.NextHops = orEmpty(r.ASPath), orEmpty(r.NextHops)
		lists[i] = r
	}
	return lists
}
