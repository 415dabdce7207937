"""The rule that renders one configuration file."""

load("//tools/component:def.bzl", "ComponentInfo")

def _root_hash(target):
    if ComponentInfo not in target:
        files = target[DefaultInfo].files.to_list()
        if len(files) != 1:
            fail("%s stands for %d files, not for one root_hash_<variant>.txt" % (target.label, len(files)))
        return files[0]
    outputs = target[ComponentInfo].outputs
    if "root_hash" not in outputs:
        fail("%s has no output `root_hash`, only: %s" % (target.label, ", ".join(sorted(outputs))))
    return outputs["root_hash"]

def _impl(ctx):
    """Renders the template with one action of a Go tool."""
    out = ctx.actions.declare_file("%s/configuration-%s.toml" % (ctx.label.name, ctx.attr.shim))
    inputs = [ctx.file.template]
    args = ctx.actions.args()
    args.add("--template", ctx.file.template)
    args.add("--template-name", ctx.file.template.basename)
    args.add("--prefix", ctx.attr.prefix)
    args.add("--arch", ctx.attr.arch)
    args.add("--output", out)
    if ctx.attr.image:
        args.add("--image", ctx.attr.image)
    if ctx.attr.initrd:
        args.add("--initrd", ctx.attr.initrd)
    if ctx.attr.rootfs_type:
        args.add("--set", "DEFROOTFSTYPE=\"%s\"" % ctx.attr.rootfs_type)
    for name, value in ctx.attr.substitutions.items():
        args.add("--set", "%s=%s" % (name, value))
    if ctx.attr.root_hash:
        if not ctx.attr.kernel_params_variable:
            fail("%s: a root_hash needs kernel_params_variable, the variable that gets the parameters for it" % ctx.label)
        root_hash = _root_hash(ctx.attr.root_hash)
        inputs.append(root_hash)
        args.add("--root-hash", root_hash)
        args.add("--kernel-params-variable", ctx.attr.kernel_params_variable)
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = inputs,
        outputs = [out],
        mnemonic = "RuntimeConfiguration",
        progress_message = "Rendering the configuration %{output}",
    )
    return [DefaultInfo(files = depset([out]))]

runtime_configuration = rule(
    implementation = _impl,
    doc = """Renders the configuration of one runtime class from the template in the runtime's module.

Variables have the values of the runtime's own build with the given prefix; `substitutions` overrides them.

How the guest's root is measured: this version of the runtime (3.20) has no setting for dm-verity. It composes the
kernel's parameters as

    <its own>  root=/dev/vda1 rootflags=ro rootfstype=<rootfs_type>  console=.. quiet panic=1 nr_cpus=<vCPUs> selinux=0
    systemd.unit=.. systemd.mask=.. scsi_mod.scan=none  <kernel_params>

and the kernel obeys the last root=. (For Firecracker the module has kernel_params first; a patch in stack/shim makes
them last, too.) So the verity tree is described in kernel_params:

    dm-mod.create="dm-verity,,,ro,0 <sectors> verity 1 /dev/vda1 /dev/vda2 <data block size> <hash block size>
    <data blocks> 0 sha256 <root hash> <salt>" root=/dev/dm-0

The runtime splits kernel_params at spaces that are not between double quotes, so the parameter stays whole; in the TOML
its quotes are escaped. (It splits the *annotation* of that name at every space: a pod cannot pass such a parameter.) The
image is a virtio-blk disk, /dev/vda: nvdimm is switched off for confidential guests and by disable_image_nvdimm, and
Firecracker has none. rootfs_type must be the image's
file system, since rootfstype= comes from it. nr_cpus is the number of vCPUs of the sandbox, so measurements differ
with it.
""",
    attrs = {
        "arch": attr.string(doc = "Architecture of the node, by Go's name.", default = "amd64"),
        "image": attr.string(doc = "The guest image on the node, in place of the initrd that the template names."),
        "initrd": attr.string(doc = "The guest's initrd on the node, in place of the image that the template names."),
        "kernel_params_variable": attr.string(doc = "The template's variable for kernel parameters, to which those of root_hash are added."),
        "prefix": attr.string(doc = "Where the payload is installed.", default = "/opt/kata"),
        "root_hash": attr.label(
            doc = "The guest image's component with an output `root_hash`, or its root_hash_<variant>.txt.",
            allow_files = True,
        ),
        "rootfs_type": attr.string(
            doc = "File system of the guest image; none if the guest is not on the node.",
            values = ["", "ext4", "erofs", "xfs"],
        ),
        "shim": attr.string(doc = "Upstream's name of the configuration, such as qemu-tdx.", mandatory = True),
        "substitutions": attr.string_dict(doc = "Values of variables, with the TOML quotes that the template lacks."),
        "template": attr.label(
            doc = "The template in the runtime's module.",
            allow_single_file = [".in"],
            mandatory = True,
        ),
        "_tool": attr.label(
            default = "//stack/runtimeconfig:render",
            executable = True,
            cfg = "exec",
        ),
    },
)
