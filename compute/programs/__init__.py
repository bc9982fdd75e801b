"""What is computed: kernels, launches, arguments, how they are cut into tasks, and how they travel."""
