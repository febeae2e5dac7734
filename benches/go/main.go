// Command peers measures Go's errgroup and context, for the rows of `cargo bench --bench peers`
// that compare with them.
//
//	go run . [-rounds 15] [NAME...]   medians, in nanoseconds (or bytes): a name and a number per line
//	go run . -serve                   a number for each name on standard input, from one round;
//	                                  for `gateway URL`, the port of a server that calls URL
//	                                  three times per request
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// The counts are the same as on the Rust side.
const (
	tasks   = 100000
	limit   = 64
	derived = 100000
	asked   = 1024000
	waiting = 10000
)

type benchmark struct {
	name string
	run  func() float64
}

var benchmarks = []benchmark{
	{"go", func() float64 { return group(0, endsAtOnce) }},
	{"go_yields", func() float64 { return group(0, yieldsOnce) }},
	{"limited_go", func() float64 { return group(limit, endsAtOnce) }},
	{"limited_go_yields", func() float64 { return group(limit, yieldsOnce) }},
	{"with_cancel", withCancel},
	{"with_timeout", withTimeout},
	{"err", err},
	{"blocked_bytes", blockedBytes},
}

func main() {
	rounds := flag.Int("rounds", 15, "how many `rounds` the medians are of")
	serve := flag.Bool("serve", false, "measure what is named on standard input")
	flag.Parse()

	if *serve {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if url := strings.TrimPrefix(lines.Text(), "gateway "); url != lines.Text() {
				fmt.Println(gateway(url))
				continue
			}
			fmt.Println(find(lines.Text()).run())
		}
		return
	}
	chosen := benchmarks
	if flag.NArg() > 0 {
		chosen = nil
		for _, name := range flag.Args() {
			chosen = append(chosen, find(name))
		}
	}
	for _, b := range chosen {
		fmt.Printf("%s %.2f\n", b.name, median(*rounds, b.run))
	}
}

func find(name string) benchmark {
	for _, b := range benchmarks {
		if b.name == name {
			return b
		}
	}
	fmt.Fprintln(os.Stderr, "there is no benchmark", name)
	os.Exit(2)
	panic("unreachable")
}

func median(rounds int, run func() float64) float64 {
	run()
	results := make([]float64, 0, rounds)
	for len(results) < rounds {
		results = append(results, run())
	}
	sort.Float64s(results)
	return results[len(results)/2]
}

func each(start time.Time, count int) float64 {
	return float64(time.Since(start).Nanoseconds()) / float64(count)
}

func endsAtOnce() error { return nil }

func yieldsOnce() error {
	runtime.Gosched()
	return nil
}

func group(limit int, body func() error) float64 {
	start := time.Now()
	g, _ := errgroup.WithContext(context.Background())
	if limit > 0 {
		g.SetLimit(limit)
	}
	for i := 0; i < tasks; i++ {
		g.Go(body)
	}
	if err := g.Wait(); err != nil {
		panic(err)
	}
	return each(start, tasks)
}

// Keeps the compiler from removing the work.
var (
	sinkContext context.Context
	sinkInt     int
)

func withCancel() float64 {
	parent, cancelParent := context.WithCancel(context.Background())
	defer cancelParent()
	start := time.Now()
	for i := 0; i < derived; i++ {
		ctx, cancel := context.WithCancel(parent)
		sinkContext = ctx
		cancel()
	}
	return each(start, derived)
}

func withTimeout() float64 {
	parent, cancelParent := context.WithCancel(context.Background())
	defer cancelParent()
	start := time.Now()
	for i := 0; i < derived; i++ {
		ctx, cancel := context.WithTimeout(parent, time.Hour)
		sinkContext = ctx
		cancel()
	}
	return each(start, derived)
}

func err() float64 {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sinkContext = ctx
	ctx = sinkContext
	ended := 0
	start := time.Now()
	for i := 0; i < asked; i++ {
		if ctx.Err() != nil {
			ended++
		}
	}
	sinkInt = ended
	return each(start, asked)
}

// Returns the bytes of heap and stack for each goroutine that waits.
func blockedBytes() float64 {
	before := inUse()
	g, _ := errgroup.WithContext(context.Background())
	release := make(chan struct{})
	for i := 0; i < waiting; i++ {
		g.Go(func() error {
			<-release
			return nil
		})
	}
	time.Sleep(200 * time.Millisecond)
	after := inUse()
	close(release)
	if err := g.Wait(); err != nil {
		panic(err)
	}
	return float64(after-before) / waiting
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// Serves requests on loopback until the program ends, and returns the port. A request calls
// upstream three times at once, under a deadline.
func gateway(upstream string) int {
	transport := &http.Transport{MaxIdleConnsPerHost: 1024}
	client := &http.Client{Transport: transport}
	handler := func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		g, ctx := errgroup.WithContext(ctx)
		var lengths [3]int64
		for i := range lengths {
			i := i
			g.Go(func() error {
				request, err := http.NewRequestWithContext(ctx, "GET", upstream, nil)
				if err != nil {
					return err
				}
				response, err := client.Do(request)
				if err != nil {
					return err
				}
				defer response.Body.Close()
				lengths[i], err = io.Copy(io.Discard, response.Body)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, lengths[0]+lengths[1]+lengths[2])
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(handler))
	return listener.Addr().(*net.TCPAddr).Port
}
