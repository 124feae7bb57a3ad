// Command app is what the testbed's own end-to-end tests run in pods: it answers with its name, can fetch another URL, and
// can be an aggregated API server as far as discovery goes.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	fmt.Println("app started")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, os.Getenv("HOSTNAME")) //nolint:errcheck // the client notices
	})
	mux.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) {
		client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(r.URL.Query().Get("url")) //nolint:noctx // bounded by its timeout
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		io.Copy(w, resp.Body)   //nolint:errcheck // the client notices
	})
	failed := make(chan error, 2)
	go func() { failed <- http.ListenAndServe(":8080", mux) }()
	if cert := os.Getenv("TLS_CERT"); cert != "" {
		go func() { failed <- serveAPI(cert, os.Getenv("TLS_KEY"), os.Getenv("FRONT_CA")) }()
	}
	return <-failed
}

// serveAPI answers the discovery of test.sluice.dev/v1 to the aggregation layer alone, which has a certificate of its own.
func serveAPI(cert, key, frontCA string) error {
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(frontCA)) {
		return errors.New("FRONT_CA holds no certificate")
	}
	server := http.Server{
		Addr:              ":8443",
		ReadHeaderTimeout: 5 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("api call", r.URL.Path, "for", r.Header.Get("X-Remote-User"), "by", r.TLS.PeerCertificates[0].Subject.CommonName)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"test.sluice.dev/v1","resources":[`+ //nolint:errcheck // the client notices
				`{"name":"things","singularName":"thing","namespaced":true,"kind":"Thing","verbs":["get"]}]}`)
		}),
	}
	return server.ListenAndServeTLS("", "")
}
