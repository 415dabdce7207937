package command

import (
	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/component/build"
)

func buildCommand() *cobra.Command {
	var (
		component          componentFlags
		job                build.Job
		srcs, env, outputs []string
	)
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Make a component of what a script installs in a build root",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if job.Component, err = component.get(); err != nil {
				return err
			}
			if err := require(map[string]string{"root": job.Root, "script": job.Script}); err != nil {
				return err
			}
			if job.Srcs, err = pairs("src", srcs); err != nil {
				return err
			}
			if job.Env, err = pairs("env", env); err != nil {
				return err
			}
			if job.Outputs, err = pairs("output", outputs); err != nil {
				return err
			}
			job.Log = cmd.ErrOrStderr()
			return build.Run(cmd.Context(), job)
		},
	}
	component.register(cmd)
	cmd.Flags().StringVar(&job.Root, "root", "", "the build root, a tar")
	cmd.Flags().StringVar(&job.Script, "script", "", "what bash runs in it")
	cmd.Flags().StringArrayVar(&srcs, "src", nil, "NAME=PATH: a file or directory, and its name below /src")
	cmd.Flags().StringArrayVar(&env, "env", nil, "NAME=VALUE: a variable for the script")
	cmd.Flags().StringArrayVar(&outputs, "output", nil, "NAME=PATH: a file below $OUT, and where it goes")
	cmd.Flags().IntVar(&job.Jobs, "jobs", 0, "jobs that the script is told to run at once, or 0 for the number of CPUs")
	cmd.Flags().StringVar(&job.WorkDir, "work-dir", ".", "where the root is unpacked for the build")
	return cmd
}
