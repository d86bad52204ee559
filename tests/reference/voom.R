# limma's precision weights of counts, and R's lowess: what tests/many/test_voom.py holds
# jaxglmm.voom to. Rscript voom.R > voom.json
suppressMessages({library(limma); library(jsonlite)})
set.seed(5)
genes <- 80; samples <- 10
dose <- seq(-1, 1, length.out = samples)
group <- rep(c("a", "b"), length.out = samples)
size <- runif(samples, 0.5, 2)
base <- exp(rnorm(genes, 3, 1.5))
mean <- outer(base, size) * exp(outer(rnorm(genes, 0, 0.3), dose))
counts <- matrix(rnbinom(genes * samples, mu = mean, size = 4), genes)
counts[7, ] <- 0
design <- model.matrix(~ dose + group)
v <- voom(counts, design)
x <- c(1, 2, 2, 3, 4.5, 5, 7, 8, 8, 8, 9.5, 11, 12, 15, 15.2, 15.3, 20)
y <- c(2, 1, 3, 2.5, 4, 6, 5, 40, 7, 8, 7.5, 9, 12, 11, 10.5, 10, 12)
smooth <- lapply(list(c(0.5, 3), c(0.3, 0), c(2 / 3, 3)), function(p) {
  l <- lowess(x, y, f = p[1], iter = p[2])
  list(span = p[1], iter = p[2], x = l$x, y = l$y)
})
out <- list(versions = list(R = R.version.string, limma = as.character(packageVersion("limma"))),
  counts = counts, dose = dose, group = group, E = v$E, weights = v$weights,
  lowess = list(x = x, y = y, found = smooth))
cat(toJSON(out, digits = NA, auto_unbox = TRUE))
