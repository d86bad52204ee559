# Log-likelihoods of random models by lme4 and glmmTMB, the best of several optimisers.
# R is given the covariate in its own unit, which leaves the likelihood as it is (REML's
# by a constant), because lme4's and glmmTMB's optimisers stop early at other units.
#   python random_models.py FOLDER && Rscript random_models.R FOLDER random_models.json
suppressMessages({library(lme4); library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
models <- fromJSON(file.path(args[1], "models.json"))
quiet <- function(e) tryCatch(suppressWarnings(suppressMessages(e)), error = function(e) NULL)
best <- function(fits) {
  fits <- Filter(Negate(is.null), fits)
  lls <- vapply(fits, function(f) as.numeric(logLik(f)), 0)
  if (!length(lls) || all(!is.finite(lls))) return(NULL)
  fits[[which.max(lls)]]
}
# x without its origin and unit, where the random effects leave the origin free
own_unit <- function(m, x) {
  origin <- if (grepl("||", m$formula, fixed = TRUE)) 0 else mean(x)
  list(origin = origin, unit = sd(x))
}
linear <- function(m, d) {
  d$g <- factor(d$g); d$h <- factor(d$h)
  f <- as.formula(m$formula)
  # the likelihood does not depend on the scale of weights; lme4's tolerances do
  d$.w <- if (m$weights) d$w / exp(mean(log(d$w))) else 1
  reml <- m$kind == "reml"
  check <- "ignore"
  ctl <- function(opt, oc) lmerControl(optimizer = opt, optCtrl = oc,
    check.conv.grad = check, check.conv.singular = check, check.conv.hess = check, check.scaleX = check)
  best(list(
    quiet(lmer(f, d, REML = reml, weights = .w, control = ctl("bobyqa", list(rhoend = 1e-9, maxfun = 1e5)))),
    quiet(lmer(f, d, REML = reml, weights = .w, control = ctl("nloptwrap", list(xtol_abs = 1e-10, ftol_abs = 1e-12, maxeval = 1e5))))))
}
# R's asks for starting values where a response is not above zero
gaussian_log <- function() {
  f <- gaussian("log")
  f$initialize <- expression({n <- rep.int(1, nobs); mustart <- pmax(y, 0.1)})
  f
}
generalised <- function(m, d) {
  d$g <- factor(d$g); d$h <- factor(d$h)
  f <- as.formula(m$formula)
  fam <- switch(m$kind,
    binomial = binomial(m$link), bernoulli = binomial(m$link), poisson = poisson(),
    nbinom2 = nbinom2(), nbinom1 = nbinom1(), gamma = Gamma("log"),
    gaussian = gaussian_log(), invgauss = NULL, beta = beta_family())
  if (is.null(fam)) return(NULL)
  d$.w <- if (m$weights) d$w else 1
  one <- function(ctl) quiet(glmmTMB(f, d, family = fam, weights = .w, control = ctl))
  best(list(one(glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 3000))),
            one(glmmTMBControl(optimizer = optim, optArgs = list(method = "BFGS"), optCtrl = list(maxit = 5000)))))
}
out <- list()
for (i in seq_len(nrow(models))) {
  m <- models[i, ]
  d <- read.csv(file.path(args[1], paste0(m$number, ".csv")))
  own <- own_unit(m, d$x)
  d$x <- (d$x - own$origin) / own$unit
  lmm <- m$kind %in% c("ml", "reml")
  fit <- if (lmm) linear(m, d) else generalised(m, d)
  if (is.null(fit)) next
  b <- if (lmm) fixef(fit) else fixef(fit)$cond
  ll <- as.numeric(logLik(fit))
  if ("x" %in% names(b)) {
    b["x"] <- b["x"] / own$unit
    b["(Intercept)"] <- b["(Intercept)"] - own$origin * b["x"]
    if (m$kind == "reml") ll <- ll - log(own$unit)
  }
  out[[as.character(m$number)]] <- list(
    loglik = ll, fixef = as.list(b), software = if (lmm) "lme4" else "glmmTMB")
}
writeLines(toJSON(out, auto_unbox = TRUE, digits = NA), args[2])
