// An import of an OVA as vSphere's clients do it, against govmomi's vCenter simulator: descriptor to import specification, lease,
// upload of every disk, completion. Prints what became of the machine as JSON on standard output; anything that the import
// objects to, be it a warning, ends the program with 1 and one line on standard error.
//
// Usage: import FILE.ova [CONFIGURATION]
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Nothing here is slow: a disk of a gigabyte is uploaded in seconds, to nowhere.
const limit = 10 * time.Minute

// machine is what the simulator made of the descriptor, and what govmomi read in it.
type machine struct {
	GuestID        string            `json:"guest_id"`
	Version        string            `json:"version"`
	CPUs           int32             `json:"cpus"`
	MemoryMiB      int32             `json:"memory_mib"`
	Controllers    []string          `json:"controllers"`
	NetworkCards   []string          `json:"network_cards"`
	Networks       []string          `json:"networks"`
	CdDrives       int               `json:"cd_drives"`
	DiskBytes      []int64           `json:"disk_bytes"`
	Uploaded       []int64           `json:"uploaded"`
	Transport      string            `json:"transport"`
	Properties     map[string]string `json:"properties"`
	Configurations []string          `json:"configurations"`
}

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: import FILE.ova [CONFIGURATION]")
		os.Exit(2)
	}
	configuration := ""
	if len(os.Args) == 3 {
		configuration = os.Args[2]
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	result, err := run(ctx, os.Args[1], configuration)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, configuration string) (*machine, error) {
	descriptor, digests, err := head(path)
	if err != nil {
		return nil, err
	}
	envelope, err := ovf.Unmarshal(strings.NewReader(descriptor))
	if err != nil {
		return nil, fmt.Errorf("reading the descriptor: %w", err)
	}

	model := simulator.VPX()
	defer model.Remove()
	if err := model.Create(); err != nil {
		return nil, err
	}
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	defer server.Close()
	client, err := govmomi.NewClient(ctx, server.URL, true)
	if err != nil {
		return nil, err
	}

	finder := find.NewFinder(client.Client)
	datacenter, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return nil, err
	}
	finder.SetDatacenter(datacenter)
	folders, err := datacenter.Folders(ctx)
	if err != nil {
		return nil, err
	}
	datastore, err := finder.DefaultDatastore(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := finder.ResourcePool(ctx, "DC0_C0/Resources")
	if err != nil {
		return nil, err
	}
	host, err := finder.HostSystem(ctx, "DC0_C0_H0")
	if err != nil {
		return nil, err
	}
	network, err := finder.Network(ctx, "VM Network")
	if err != nil {
		return nil, err
	}

	// Exactly one network, mapped by the name that the descriptor gives it, as a deployment's page does.
	if envelope.Network == nil || len(envelope.Network.Networks) != 1 {
		return nil, errors.New("the descriptor has not exactly one network")
	}
	parameters := types.OvfCreateImportSpecParams{
		EntityName: "imported",
		OvfManagerCommonParams: types.OvfManagerCommonParams{
			DeploymentOption: configuration,
		},
		NetworkMapping: []types.OvfNetworkMapping{
			{Name: envelope.Network.Networks[0].Name, Network: network.Reference()},
		},
	}
	manager := ovf.NewManager(client.Client)
	spec, err := manager.CreateImportSpec(ctx, descriptor, pool, datastore, parameters)
	if err != nil {
		return nil, fmt.Errorf("making the import specification: %w", err)
	}
	for _, fault := range append(spec.Error, spec.Warning...) {
		return nil, fmt.Errorf("the import objects: %s", fault.LocalizedMessage)
	}

	lease, err := pool.ImportVApp(ctx, spec.ImportSpec, folders.VmFolder, host)
	if err != nil {
		return nil, fmt.Errorf("starting the import: %w", err)
	}
	info, err := lease.Wait(ctx, spec.FileItem)
	if err != nil {
		return nil, err
	}
	// Without its ticks an upload of more than the lease's time is cut off; nothing but it reads the progress either.
	updater := lease.StartUpdater(ctx, info)
	uploaded, err := upload(ctx, path, digests, lease, info)
	updater.Done()
	if err != nil {
		return nil, err
	}
	if err := lease.Complete(ctx); err != nil {
		return nil, fmt.Errorf("completing the import: %w", err)
	}
	return look(ctx, object.NewVirtualMachine(client.Client, info.Entity), envelope, uploaded)
}

// head reads the descriptor, which must be the first member, and the manifest, which must be the second and true of it.
func head(path string) (string, map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	archive := tar.NewReader(file)
	texts := make([]string, 2)
	names := make([]string, 2)
	for index, suffix := range []string{".ovf", ".mf"} {
		header, err := archive.Next()
		if err != nil {
			return "", nil, err
		}
		if !strings.HasSuffix(header.Name, suffix) {
			return "", nil, fmt.Errorf("member %d is `%s`, not the `%s`", index+1, header.Name, suffix)
		}
		text, err := io.ReadAll(io.LimitReader(archive, 1<<20))
		if err != nil {
			return "", nil, err
		}
		texts[index], names[index] = string(text), header.Name
	}
	digests := make(map[string]string)
	for _, line := range strings.Split(strings.TrimSuffix(texts[1], "\n"), "\n") {
		name, digest, found := strings.Cut(line, ")= ")
		if !found || !strings.HasPrefix(name, "SHA256(") {
			return "", nil, fmt.Errorf("the manifest has a line `%s`", line)
		}
		digests[strings.TrimPrefix(name, "SHA256(")] = digest
	}
	sum := sha256.Sum256([]byte(texts[0]))
	if digests[names[0]] != hex.EncodeToString(sum[:]) {
		return "", nil, errors.New("the manifest does not speak of this descriptor")
	}
	return texts[0], digests, nil
}

// upload sends each disk that the lease asks for, in the order of the archive, and holds it against the manifest.
func upload(
	ctx context.Context,
	path string,
	digests map[string]string,
	lease *nfc.Lease,
	info *nfc.LeaseInfo,
) ([]int64, error) {
	wanted := make(map[string]nfc.FileItem)
	for _, item := range info.Items {
		wanted[item.Path] = item
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	archive := tar.NewReader(file)
	var sizes []int64
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		item, found := wanted[header.Name]
		if !found {
			continue
		}
		delete(wanted, header.Name)
		if item.Size != header.Size {
			return nil, fmt.Errorf("`%s` has %d bytes, the descriptor says %d", header.Name, header.Size, item.Size)
		}
		hash := sha256.New()
		options := soap.Upload{ContentLength: header.Size}
		if err := lease.Upload(ctx, item, io.TeeReader(archive, hash), options); err != nil {
			return nil, fmt.Errorf("uploading `%s`: %w", header.Name, err)
		}
		if digest := hex.EncodeToString(hash.Sum(nil)); !bytes.Equal([]byte(digest), []byte(digests[header.Name])) {
			return nil, fmt.Errorf("the manifest does not speak of this `%s`", header.Name)
		}
		sizes = append(sizes, header.Size)
	}
	for name := range wanted {
		return nil, fmt.Errorf("there is no member `%s`", name)
	}
	return sizes, nil
}

// look says what is there after the import.
func look(
	ctx context.Context,
	vm *object.VirtualMachine,
	envelope *ovf.Envelope,
	uploaded []int64,
) (*machine, error) {
	var found mo.VirtualMachine
	if err := vm.Properties(ctx, vm.Reference(), []string{"config"}, &found); err != nil {
		return nil, err
	}
	config := found.Config
	result := &machine{
		GuestID:    config.GuestId,
		Version:    config.Version,
		CPUs:       config.Hardware.NumCPU,
		MemoryMiB:  config.Hardware.MemoryMB,
		Uploaded:   uploaded,
		Properties: make(map[string]string),
	}
	devices := object.VirtualDeviceList(config.Hardware.Device)
	for _, device := range devices {
		switch device := device.(type) {
		case types.BaseVirtualSCSIController:
			result.Controllers = append(result.Controllers, devices.Type(device.(types.BaseVirtualDevice)))
		case *types.VirtualDisk:
			result.DiskBytes = append(result.DiskBytes, device.CapacityInKB*1024)
		case *types.VirtualCdrom:
			result.CdDrives++
		case types.BaseVirtualEthernetCard:
			// `Type` calls every card `ethernet`.
			name := strings.TrimPrefix(devices.TypeName(device.(types.BaseVirtualDevice)), "Virtual")
			result.NetworkCards = append(result.NetworkCards, strings.ToLower(name))
			if backing, ok := device.GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
				result.Networks = append(result.Networks, backing.DeviceName)
			}
		}
	}
	// The simulator takes no notice of these; that govmomi finds them is what `govc import.spec` shows.
	hardware := envelope.VirtualSystem.VirtualHardware[0]
	if hardware.Transport != nil {
		result.Transport = *hardware.Transport
	}
	for _, product := range envelope.VirtualSystem.Product {
		for _, property := range product.Property {
			value := ""
			if property.Default != nil {
				value = *property.Default
			}
			result.Properties[property.Key] = value
		}
	}
	if envelope.DeploymentOption != nil {
		for _, option := range envelope.DeploymentOption.Configuration {
			result.Configurations = append(result.Configurations, option.ID)
		}
	}
	return result, nil
}
