package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"promptgen/generate"
	"promptgen/internal/fault"
	"promptgen/serve"
)

func (a *app) serveCommand() *cli.Command {
	const access, limits = "Access", "Limits"
	return &cli.Command{
		Name:  "serve",
		Usage: "answer prompts over HTTP",
		Flags: append([]cli.Flag{
			modelFlag(),
			baseFlag(),
			vocabFlag("vocabulary `FILE`, for a model folder without one"),
			&cli.StringFlag{Name: "host", Value: "127.0.0.1", Usage: "`ADDRESS` to listen on (0.0.0.0: every one of this machine's)"},
			&cli.IntFlag{Name: "port", Value: 5005, Usage: "port to listen on (0: any that is free)"},
			dtypeFlag("", inferenceTypes),
			deviceFlag(),
			&cli.StringFlag{Name: "api-key-file", Category: access, Usage: "`FILE` with one key a line: only requests with one of them are answered"},
			&cli.StringSliceFlag{Name: "cors-origin", Category: access, Usage: "`ORIGIN` whose pages may ask, repeat for more (default: any)"},
			&cli.StringFlag{Name: "tls-cert", Category: access, Usage: "`FILE` with the certificate, for https"},
			&cli.StringFlag{Name: "tls-key", Category: access, Usage: "`FILE` with its key"},
			&cli.BoolFlag{Name: "log-prompts", Category: access, Usage: "write prompts to the log"},
			&cli.IntFlag{Name: "max-length", Category: limits, Value: 1024, Usage: "tokens that a request may ask for"},
			&cli.IntFlag{Name: "max-samples", Category: limits, Value: 32, Usage: "samples that a request may ask for"},
			&cli.IntFlag{Name: "max-queue", Category: limits, Value: 64, Usage: "requests that wait at most, further ones are refused (503)"},
			&cli.IntFlag{Name: "slots", Category: limits, Value: 16, Usage: "texts that are written together"},
			&cli.Float64Flag{Name: "rate", Category: limits, Usage: "requests a second for each key or address (0: any)"},
			&cli.DurationFlag{Name: "timeout", Category: limits, Value: 5 * time.Minute, Usage: "for one request, waiting included"},
			&cli.DurationFlag{Name: "drain", Category: limits, Value: 30 * time.Second, Usage: "for the requests in flight when the server is stopped"},
		}, frameFlags()...),
		Action: func(c *cli.Context) error {
			o, err := a.serveOptions(c)
			if err != nil {
				return err
			}
			server, err := serve.New(o)
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", net.JoinHostPort(bare(c.String("host")), strconv.Itoa(c.Int("port"))))
			if err != nil {
				return fault.Usage("%w; choose another --port or --host", err)
			}
			a.console.Log.Info("listening", "address", l.Addr().String(), "model", c.String("model"))
			hangUp := make(chan os.Signal, 1)
			signal.Notify(hangUp, syscall.SIGHUP)
			defer signal.Stop(hangUp)
			go server.ReloadOn(c.Context, hangUp)
			return server.Serve(c.Context, l)
		},
	}
}

// serveOptions reads the flags; every fault is named at once.
func (a *app) serveOptions(c *cli.Context) (serve.Options, error) {
	var faults fault.List
	a.refuseDevice(&faults, c.String("device"))
	dtype(&faults, c.String("dtype"), inferenceTypes)
	positive(&faults, c, "max-length", "max-samples", "max-queue", "slots")
	if p := c.Int("port"); p < 0 || p > 65535 {
		faults.Addf("--port must be between 0 and 65535, not %d", p)
	}
	drain := c.Duration("drain")
	if drain == 0 { // none, which Options take for the default
		drain = 1
	}
	if c.Duration("timeout") == 0 {
		faults.Addf("--timeout must be above 0: no request would be answered")
	}
	o := serve.Options{
		Open: func(context.Context) (*serve.Model, error) {
			g, err := a.openGenerator(c, generate.EngineOptions{Slots: c.Int("slots"), MaxQueue: c.Int("max-queue")})
			if err != nil {
				return nil, err
			}
			return &serve.Model{Name: modelName(c.String("model")), Engine: g.engine, Close: g.close}, nil
		},
		Log: a.console.Log, LogPrompts: c.Bool("log-prompts"),
		CORSOrigins: c.StringSlice("cors-origin"), APIKeyFile: c.String("api-key-file"), Rate: c.Float64("rate"),
		MaxLength: c.Int("max-length"), MaxSamples: c.Int("max-samples"),
		Timeout: c.Duration("timeout"), Drain: drain,
		TLSCert: c.String("tls-cert"), TLSKey: c.String("tls-key"),
	}
	return o, faults.Err("serve")
}

// bare takes off the brackets that an IPv6 address has beside a port.
func bare(host string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1]
	}
	return host
}

// modelName is what clients know a model folder by.
func modelName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Base(path)
}
