// The NATS server: its own main package, named here so that go.mod and go.sum pin it.
package main

import (
	"log"
	"os"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	options := &server.Options{ConfigFile: os.Args[1]}
	if err := options.ProcessConfigFile(os.Args[1]); err != nil {
		log.Fatal(err)
	}
	broker, err := server.NewServer(options)
	if err != nil {
		log.Fatal(err)
	}
	broker.ConfigureLogger()
	broker.Start()
	broker.WaitForShutdown()
}
