package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"frond/internal/status"
)

// atOnce bounds how many scrapes are answered at one time: each reads all that
// the agent knows.
const atOnce = 4

// Handler answers a scrape in the formats that Prometheus and OpenMetrics know:
// what read gives, and how the process itself is.
func Handler(read func() status.Vitals) http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(read),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: atOnce})
}

// collector reads when it is asked.
type collector struct {
	read func() status.Vitals
	of   map[string]described
}

type described struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newCollector(read func() status.Vitals) *collector {
	c := &collector{read: read, of: make(map[string]described)}
	for _, d := range definitions() {
		kind := prometheus.GaugeValue
		if d.counter {
			kind = prometheus.CounterValue
		}
		c.of[d.name] = described{prometheus.NewDesc(d.name, d.help, d.labels, nil), kind}
	}
	return c
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.of {
		descs <- d.desc
	}
}

// Collect is prometheus.Collector's.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	for _, s := range Of(c.read()) {
		d := c.of[s.Metric]
		metrics <- prometheus.MustNewConstMetric(d.desc, d.kind, s.Value, s.Labels...)
	}
}
