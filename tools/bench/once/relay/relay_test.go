package relay_test

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/bench/once/relay"
)

func TestRelayCountsBothWays(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	served := make(chan error, 1)
	go func() {
		c, err := server.Accept()
		if err == nil {
			defer c.Close()
			question := make([]byte, 5)
			if _, err = io.ReadFull(c, question); err == nil {
				_, err = c.Write([]byte("the answer"))
			}
		}
		served <- err
	}()
	r, err := relay.Start(server.Addr().String())
	require.NoError(t, err)
	client, err := net.Dial("tcp", r.Address())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("what?"))
	require.NoError(t, err)
	answer, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "the answer", string(answer))
	require.NoError(t, <-served)
	require.NoError(t, r.Close())
	require.EqualValues(t, 5, r.Up())
	require.EqualValues(t, 10, r.Down())
}

func TestCloseEndsConnections(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	r, err := relay.Start(server.Addr().String())
	require.NoError(t, err)
	client, err := net.Dial("tcp", r.Address())
	require.NoError(t, err)
	defer client.Close()
	accepted, err := server.Accept()
	require.NoError(t, err)
	defer accepted.Close()
	require.NoError(t, r.Close())
	_, err = client.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = net.Dial("tcp", r.Address())
	require.Error(t, err)
}
