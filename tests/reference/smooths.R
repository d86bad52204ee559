# Penalised splines by mgcv: score, effective degrees of freedom, fitted predictors.
#   Rscript smooths.R ../data/sim_smooth.csv.gz smooths.json
suppressMessages({library(mgcv); library(jsonlite)})
args <- commandArgs(TRUE)
d <- read.csv(args[1], stringsAsFactors = TRUE)
case <- function(formula, family, method) {
  m <- gam(as.formula(formula), family = family, data = d, method = method,
           control = gam.control(epsilon = 1e-12))
  list(formula = formula, family = m$family$family, method = method,
       loglik = -as.numeric(m$gcv.ubre), edf = summary(m)$edf, sd = as.numeric(gam.vcomp(m)[, 1]),
       se = sqrt(diag(vcov(m)))[seq_len(3)], eta = as.numeric(predict(m))[1:20])
}
out <- list(
  gam_s = case('y ~ f + s(x) + s(g, bs = "re")', gaussian(), "REML"),
  gam_by = case('y ~ f + s(x, by = f) + s(g, bs = "re")', gaussian(), "REML"),
  gam_te_ml = case('y ~ te(x, z) + s(g, bs = "re")', gaussian(), "ML"),
  gam_poisson_ml = case('count ~ f + s(x, bs = "cr") + s(g, bs = "re")', poisson(), "ML"),
  gam_poisson_reml = case('count ~ f + s(x, bs = "cr") + s(g, bs = "re")', poisson(), "REML"))
writeLines(toJSON(out, auto_unbox = TRUE, digits = NA), args[2])
