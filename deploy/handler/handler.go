// Package handler is what the installer tells container runtimes about.
package handler

// Handler is one runtime handler, for one runtime class.
type Handler struct {
	// Name is what a RuntimeClass names, such as kata-qemu-tdx.
	Name string
	// Shim is the containerd-shim-kata-v2 on the node.
	Shim string
	// Config is the runtime's configuration file on the node.
	Config string
	// GuestPull says that images are pulled inside of the guest.
	GuestPull bool
	// Snapshotter is the one that unpacks its images; empty means containerd's
	// own choice.
	Snapshotter string
}

// Header begins every file that tells a runtime: whose it is.
const Header = "# Written by kata-deploy, which replaces and removes it. Change nothing here.\n\n"
