# Laplace's approximation over fixed and random effects, by glmmTMB.
#   Rscript reml_glmm.R ../data/sim_smooth.csv.gz reml_glmm.json
suppressMessages({library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
d <- read.csv(args[1], stringsAsFactors = TRUE)
case <- function(formula, family) {
  m <- glmmTMB(as.formula(formula), d, family = family, REML = TRUE)
  list(formula = formula, family = family, version = as.character(packageVersion("glmmTMB")),
       loglik = as.numeric(logLik(m)), beta = unname(fixef(m)$cond),
       se = unname(sqrt(diag(vcov(m)$cond))),
       sd = unname(attr(VarCorr(m)$cond$g, "stddev")), sigma = sigma(m))
}
out <- list(poisson = case("count ~ f + x + (1 | g)", "poisson"),
            nbinom2 = case("count ~ f + x + (1 | g)", "nbinom2"))
writeLines(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = TRUE), args[2])
