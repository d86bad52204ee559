# Reference values of R. Run in this folder: Rscript generate.R [case ...]
suppressMessages({
  library(lme4); library(lmerTest); library(pbkrtest); library(glmmTMB); library(nlme); library(jsonlite)
})
lmer <- lme4::lmer                       # plain lme4 fits; lmerTest only for the tests
Sys.setlocale("LC_COLLATE", "C")
options(contrasts = c("contr.treatment", "contr.poly"), warn = 1)

## Optimiser settings tighter than the defaults, so that the values are optima to many digits.
LMC  <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
glmer_control <- function(tol, optimizer = "bobyqa")       # tol: of the inner iterations (default 1e-7 costs digits)
  glmerControl(optimizer = optimizer, optCtrl = if (optimizer == "bobyqa") list(rhoend = 1e-8, maxfun = 2e5) else list(), tolPwrss = tol)
GLMC <- glmer_control(1e-12)
## nlminb, then Newton steps as long as they shrink the gradient
polish <- function(start, objective, gradient, control, ...) {
  o <- nlminb(start, objective, gradient, control = control)
  for (i in 1:4) {
    g <- gradient(o$par); R <- tryCatch(chol(optimHess(o$par, objective, gradient)), error = function(e) NULL)
    if (is.null(R)) break
    s <- backsolve(R, backsolve(R, as.numeric(g), transpose = TRUE)); if (max(abs(s)) > 0.05) break
    g2 <- gradient(o$par - s); if (!all(is.finite(g2)) || max(abs(g2)) >= max(abs(g)) || objective(o$par - s) > o$objective + 1e-9) break
    o$par <- o$par - s; o$objective <- objective(o$par) }
  o }
TMBC <- glmmTMBControl(optimizer = polish, optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-10))

folders <- c("../../jaxglmm/datasets", "../data")
schema <- lapply(setNames(folders, folders), function(f) fromJSON(file.path(f, "schema.json"), simplifyVector = TRUE))

## One dataset: the CSV, with the factors of schema.json (there a list of levels) made factors again.
load_data <- function(name) {
  f <- Find(function(f) !is.null(schema[[f]][[name]]), folders); columns <- schema[[f]][[name]]$columns
  d <- read.csv(gzfile(file.path(f, paste0(name, ".csv.gz"))), stringsAsFactors = FALSE,
                na.strings = "", check.names = FALSE)
  for (v in names(columns)) if (length(columns[[v]]) > 1)
    d[[v]] <- factor(as.character(d[[v]]), levels = columns[[v]])
  d
}

nl  <- function(x) as.list(x)                                    # named vector -> JSON object
mat <- function(x) { x <- as.matrix(x); list(names = I(rownames(x)), matrix = unname(x)) }
first <- function(x, k = 20) I(unname(head(as.numeric(x), k)))
catcher <- function(expr) {                                      # value + warnings + messages
  w <- character()
  v <- withCallingHandlers(tryCatch(expr, error = function(e) e),
    warning = function(c) { w <<- c(w, trimws(conditionMessage(c))); invokeRestart("muffleWarning") },
    message = function(c) { w <<- c(w, trimws(conditionMessage(c))); invokeRestart("muffleMessage") })
  list(value = v, warnings = I(unique(w)))
}

## Random-effect terms of a VarCorr object (lme4 or one component of glmmTMB).
varcorr <- function(vc) lapply(setNames(seq_along(vc), names(vc)), function(i) {
  S <- as.matrix(vc[[i]]); sd <- as.numeric(attr(vc[[i]], "stddev")); co <- as.matrix(attr(vc[[i]], "correlation"))
  S <- matrix(as.numeric(S), nrow(S), dimnames = dimnames(S))
  nm <- rownames(S); if (nrow(S) > 12) return(list(names = I(nm), sd = I(sd), corr_first_row = I(as.numeric(co[1, ]))))
  list(names = I(nm), sd = I(sd), corr = unname(matrix(as.numeric(co), nrow(S))), cov = unname(S))
})

## Conditional modes and variances: data frame of lme4/glmmTMB -> per grouping factor.
raneff <- function(re) {
  df <- as.data.frame(re)
  if (is.null(df$component)) df$component <- "cond"
  out <- list()
  for (g in unique(paste(df$component, df$grpvar, sep = "|"))) {
    z <- df[paste(df$component, df$grpvar, sep = "|") == g, ]
    tm <- unique(as.character(z$term)); lv <- unique(as.character(z$grp))
    k <- if (length(lv) > 500) 200 else length(lv)
    V <- sapply(tm, function(t) { y <- z[z$term == t, ]; y$condval[match(lv[1:k], as.character(y$grp))] })
    C <- sapply(tm, function(t) { y <- z[z$term == t, ]; y$condsd[match(lv[1:k], as.character(y$grp))]^2 })
    lab <- if (startsWith(g, "cond|")) sub("cond|", "", g, fixed = TRUE) else g
    out[[lab]] <- list(names = I(tm), total_levels = length(lv), levels = I(lv[1:k]),
                       values = unname(matrix(V, k)), condvar = unname(matrix(C, k)))
  }
  out
}

## What is common to every case
head_of <- function(name, data, m, method, software, extra) {
  fam <- tryCatch(family(m), error = function(e) list(family = "gaussian", link = "identity"))
  ff <- tryCatch(names(Filter(is.factor, model.frame(m))), error = function(e) character())
  c(list(name = name, dataset = data, formula = paste(deparse(formula(m), width.cutoff = 500), collapse = " "),
         family = fam$family, link = fam$link, method = method, software = software,
         version = as.character(packageVersion(software)), R = R.version.string,
         r_call = paste(deparse(if (isS4(m)) m@call else m$call, width.cutoff = 500), collapse = " "),
         factors = I(ff)), extra)
}

from_lme4 <- function(name, data, m, extra, satt, kr, anova3, method = NULL) {
  lmm <- is(m, "lmerMod"); reml <- lmm && isREML(m)
  nagq <- if (lmm) NA else m@devcomp$dims[["nAGQ"]]
  if (is.null(method)) method <- if (lmm) { if (reml) "REML" else "ML" } else if (nagq == 1) "Laplace" else paste("AGQ", nagq)
  ll <- logLik(m); b <- fixef(m); V <- as.matrix(vcov(m))
  r <- head_of(name, data, m, method, "lme4", extra)
  r$nobs <- nobs(m); r$ngroups <- nl(ngrps(m)); r$fixef <- nl(b); r$se <- nl(setNames(sqrt(diag(V)), names(b))); r$vcov <- mat(V)
  if (!lmm) { r$vcov_note <- "vcov: from the Hessian over (theta, beta); vcov_rx: from the penalised weighted least squares factor, theta fixed"
    r$vcov_rx <- mat(suppressWarnings(as.matrix(vcov(m, use.hessian = FALSE)))) }
  r$sigma <- sigma(m); r$varcorr <- varcorr(VarCorr(m)); r$theta <- nl(getME(m, "theta")); r$singular <- isSingular(m, tol = 1e-5)
  r$loglik <- as.numeric(ll); r$npar <- attr(ll, "df"); r$minus2loglik <- -2 * as.numeric(ll)
  r$reml_criterion <- if (reml) REMLcrit(m) else NULL
  r$deviance <- if (reml) NULL else as.numeric(deviance(m))
  r$AIC <- AIC(m); r$BIC <- BIC(m); r$df_residual <- df.residual(m)
  if (!lmm && nagq > 1) {   # lme4 drops the constant of the saturated model when nAGQ > 1
    y <- m@resp$y; w <- weights(m, "prior"); a <- m@resp$family$aic(y, w, y, w, 0)
    r$loglik_full <- as.numeric(ll) - a / 2
    r$loglik_note <- "loglik as lme4 prints it lacks the saturated log-likelihood; loglik_full has it and compares with Laplace"
  }
  r$ranef <- raneff(ranef(m, condVar = TRUE))
  r$ranef_note <- "condvar: conditional on the fixed effects and theta"
  r$fitted_first20 <- first(fitted(m)); r$residuals_first20 <- first(residuals(m)); r$residuals_type <- if (lmm) "response" else "deviance"
  if (!lmm) r$residuals_pearson_first20 <- first(residuals(m, "pearson"))
  if (lmm && (satt || anova3)) {
    t <- catcher({ mt <- lmerTest::as_lmerModLmerTest(m); list(cf = coef(summary(mt, ddf = "Satterthwaite")), an = if (anova3) anova(mt, type = 3, ddf = "Satterthwaite"), mt = mt) })
    if (inherits(t$value, "error")) r$satterthwaite <- list(error = conditionMessage(t$value)) else {
      cf <- t$value$cf; cn <- function(j) nl(setNames(cf[, j], rownames(cf)))
      r$satterthwaite <- list(df = cn("df"), t = cn("t value"), p = cn("Pr(>|t|)"))
      tab <- function(a) lapply(setNames(rownames(a), rownames(a)), function(z) list(sum_sq = a[z, "Sum Sq"], mean_sq = a[z, "Mean Sq"], num_df = a[z, "NumDF"], den_df = a[z, "DenDF"], F = a[z, "F value"], p = a[z, "Pr(>F)"]))
      if (anova3 && nrow(t$value$an)) r$anova_type3_satterthwaite <- tab(t$value$an)
      if (kr && reml) { k <- catcher(list(cf = coef(summary(t$value$mt, ddf = "Kenward-Roger")), V = as.matrix(vcovAdj(m)), an = if (anova3) anova(t$value$mt, type = 3, ddf = "Kenward-Roger")))
        if (inherits(k$value, "error")) r$kenward_roger <- list(error = conditionMessage(k$value)) else {
          cf <- k$value$cf
          r$kenward_roger <- list(df = cn("df"), se = cn("Std. Error"), t = cn("t value"), p = cn("Pr(>|t|)"), vcov_adj = mat(k$value$V))
          if (anova3 && nrow(k$value$an)) r$anova_type3_kenward_roger <- tab(k$value$an) } }
    }
  }
  r
}

from_tmb <- function(name, data, m, extra) {
  ll <- logLik(m); fe <- fixef(m)
  r <- head_of(name, data, m, if (isTRUE(m$modelInfo$REML)) "REML" else "Laplace", "glmmTMB", extra)
  r$ziformula <- deparse(m$modelInfo$allForm$ziformula); r$dispformula <- deparse(m$modelInfo$allForm$dispformula)
  r$nobs <- nobs(m); r$ngroups <- lapply(m$modelInfo$grpVar, function(g) nlevels(m$frame[[g]])); names(r$ngroups) <- m$modelInfo$grpVar
  r$ngroups <- if (all(lengths(r$ngroups) == 1) && all(unlist(r$ngroups) > 0)) r$ngroups else NULL
  V <- vcov(m)
  r$fixef <- nl(fe$cond); r$se <- nl(setNames(sqrt(diag(V$cond)), names(fe$cond))); r$vcov <- mat(V$cond)
  if (length(fe$zi)) { r$fixef_zi <- nl(fe$zi); r$se_zi <- nl(setNames(sqrt(diag(V$zi)), names(fe$zi))); r$vcov_zi <- mat(V$zi) }
  if (length(fe$disp)) r$fixef_disp <- nl(fe$disp)
  if (!is.null(V$disp)) r$vcov_disp <- mat(V$disp)
  p <- m$fit$par; names(p) <- make.unique(names(p))
  r$par <- nl(p); C <- m$sdr$cov.fixed; dimnames(C) <- list(names(p), names(p)); r$vcov_par <- mat(C)
  r$par_note <- "par: glmmTMB's internal parameters: beta, betazi, betad (log dispersion), theta (log sd first, then scaled correlations), psi; vcov_par their joint covariance"
  r$sigma <- tryCatch(sigma(m), error = function(e) NULL)
  if (m$modelInfo$family$family == "tweedie") r$tweedie_power <- as.numeric(family_params(m))
  vc <- VarCorr(m); r$varcorr <- varcorr(vc$cond); if (length(vc$zi)) r$varcorr_zi <- varcorr(vc$zi)
  r$loglik <- as.numeric(ll); r$npar <- attr(ll, "df"); r$minus2loglik <- -2 * as.numeric(ll)
  r$AIC <- AIC(m); r$BIC <- BIC(m); r$df_residual <- df.residual(m)
  r$ranef <- tryCatch(raneff(ranef(m, condVar = TRUE)), error = function(e) list(error = conditionMessage(e)))
  r$ranef_note <- "condvar of glmmTMB includes the uncertainty of the fixed effects and theta (TMB sdreport)"
  r$fitted_first20 <- first(fitted(m)); r$residuals_first20 <- first(residuals(m)); r$residuals_type <- "response"
  r$max_gradient <- max(abs(m$obj$gr(m$fit$par))); r$convergence <- m$fit$convergence
  r
}

from_lme <- function(name, data, m, extra) {
  ll <- logLik(m); b <- nlme::fixef(m); V <- m$varFix
  r <- head_of(name, data, m, m$method, "nlme", extra)
  r$formula <- paste(deparse(formula(m)), "; random:", paste(deparse(m$call$random), collapse = ""))
  tt <- summary(m)$tTable
  r$nobs <- nobs(m); r$ngroups <- m$dims$ngrps[[1]]; r$fixef <- nl(b); r$se <- nl(setNames(sqrt(diag(V)), names(b))); r$vcov <- mat(V)
  r$nlme_df <- nl(setNames(tt[, "DF"], rownames(tt))); r$t <- nl(setNames(tt[, "t-value"], rownames(tt))); r$p <- nl(setNames(tt[, "p-value"], rownames(tt)))
  r$sigma <- m$sigma
  S <- as.matrix(nlme::getVarCov(m)); S <- matrix(as.numeric(S), nrow(S), dimnames = dimnames(S))
  r$varcorr <- setNames(list(list(names = I(rownames(S)), sd = I(unname(sqrt(diag(S)))), corr = unname(cov2cor(S)), cov = unname(S))), names(m$groups)[1])
  if (!is.null(m$modelStruct$corStruct)) r$cor_struct <- list(class = class(m$modelStruct$corStruct)[1], coef = I(unname(as.numeric(coef(m$modelStruct$corStruct, unconstrained = FALSE)))))
  if (!is.null(m$modelStruct$varStruct)) r$var_struct <- list(class = class(m$modelStruct$varStruct)[1], coef = nl(coef(m$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)))
  r$loglik <- as.numeric(ll); r$npar <- attr(ll, "df"); r$minus2loglik <- -2 * as.numeric(ll); r$AIC <- AIC(m); r$BIC <- BIC(m)
  re <- nlme::ranef(m); r$ranef <- setNames(list(list(names = I(names(re)), total_levels = nrow(re), levels = I(rownames(re)), values = unname(as.matrix(re)))), names(m$groups)[1])
  r$fitted_first20 <- first(fitted(m)); r$residuals_first20 <- first(residuals(m)); r$residuals_type <- "response"
  r
}

GLMC0 <- GLMC
save_json <- function(r, name) writeLines(toJSON(r, auto_unbox = TRUE, digits = NA, na = "null", null = "null", pretty = TRUE), paste0(name, ".json"))
ONLY <- commandArgs(TRUE)                # optional: names of the cases to run
wanted <- function(name) length(ONLY) == 0 || name %in% ONLY

## A case: dataset, a quoted fit that uses `d`, and what more to record.
##   cross: also give the log-likelihood of glmmTMB (a second implementation).
##   best:  also try these other lme4 optimisers and record the best log-likelihood.
case <- function(name, data, fit, satt = FALSE, kr = FALSE, anova3 = FALSE, cross = FALSE, best = character(), more = NULL, ...) {
  if (!wanted(name)) return(invisible())
  t0 <- proc.time()[[3]]
  d <<- load_data(data)
  tols <- if (identical(fit[[1]], quote(glmer))) c(1e-13, 1e-12, 1e-11, 1e-10, 1e-9) else NA
  for (tol in tols) {        # glmer's step-halving may fail when asked for more than rounding allows: then ask for less
    if (!is.na(tol)) GLMC <<- glmer_control(tol)
    f <- catcher(eval(fit, globalenv())); m <- f$value
    if (!(inherits(m, "error") && grepl("pwrssUpdate|PIRLS|maxstephalf", conditionMessage(m)))) break }
  extra <- list(...); extra$warnings <- f$warnings; if (!is.na(tol)) extra$tolPwrss <- tol
  if (inherits(m, "error")) {
    save_json(c(list(name = name, dataset = data, r_call = paste(deparse(fit, width.cutoff = 500), collapse = " "), expect = "error", error = conditionMessage(m)), extra), name)
    cat(sprintf("%-34s ERROR %s\n", name, conditionMessage(m))); return(invisible()) }
  r <- if (inherits(m, "glmmTMB")) from_tmb(name, data, m, extra) else if (inherits(m, "lme")) from_lme(name, data, m, extra) else from_lme4(name, data, m, extra, satt, kr, anova3)
  if (!inherits(m, "lme")) r$formula <- paste(deparse(fit[[2]], width.cutoff = 500), collapse = " ")     # as written, || not expanded
  if (length(best)) {
    tr <- lapply(setNames(best, best), function(o) { ctl <- if (is(m, "lmerMod")) lmerControl(optimizer = o) else glmer_control(tol, o)
      cl <- fit; cl$control <- ctl; z <- catcher(eval(cl, globalenv())); if (inherits(z$value, "error")) NULL else as.numeric(logLik(z$value)) })
    if (is(m, "lmerMod") && nobs(m) < 5000) {     # and nlminb from random starts
      dev <- suppressMessages(update(m, devFunOnly = TRUE)); lo <- getME(m, "lower"); set.seed(1)
      tr$multistart <- max(sapply(1:12, function(i) { th <- ifelse(lo == 0, exp(rnorm(length(lo), -0.5, 1.5)), rnorm(length(lo)))
        tryCatch(-nlminb(th, dev, lower = lo, control = list(rel.tol = 1e-13, eval.max = 2000, iter.max = 2000))$objective / 2, error = function(e) -Inf) })) }
    r$optimizers <- tr
  }
  if (cross) { cl <- fit; cl[[1]] <- quote(glmmTMB); cl$control <- quote(TMBC); cl$nAGQ <- NULL
    z <- catcher(eval(cl, globalenv()))
    r$glmmTMB <- if (inherits(z$value, "error")) list(error = conditionMessage(z$value)) else
      list(loglik = as.numeric(logLik(z$value)), fixef = nl(fixef(z$value)$cond), varcorr = varcorr(VarCorr(z$value)$cond), warnings = z$warnings) }
  lls <- c(r$loglik, unlist(r$optimizers), if (r$method %in% c("Laplace", "ML")) r$glmmTMB$loglik)
  r$loglik_best <- max(lls[is.finite(lls)])        # to be reached within 1e-3
  if (!is.null(more)) { z <- catcher(eval(more, list(m = m, r = r), globalenv())); if (inherits(z$value, "error")) r$more_error <- conditionMessage(z$value) else r <- c(r, z$value) }
  save_json(r, name)
  cat(sprintf("%-34s ll=%.4f best=%s npar=%d %s%.1fs\n", name, r$loglik, if (is.null(r$loglik_best)) "-" else sprintf("%.4f", r$loglik_best), r$npar, if (length(f$warnings)) paste0("W[", paste(substr(f$warnings, 1, 60), collapse = " | "), "] ") else "", proc.time()[[3]] - t0))
  invisible()
}

profile_ci <- function(m) { ci <- suppressMessages(confint(m, method = "profile", oldNames = FALSE, quiet = TRUE))
  list(confint_profile = list(level = 0.95, names = I(rownames(ci)), lower = I(unname(ci[, 1])), upper = I(unname(ci[, 2])))) }

predictions <- function(m, nd, type) {
  p <- function(...) I(unname(as.numeric(predict(m, newdata = nd, allow.new.levels = TRUE, ...))))
  z <- list(newdata = nd, population = if (is(m, "lmerMod")) p(re.form = NA) else p(re.form = NA, type = type), conditional = if (is(m, "lmerMod")) p() else p(type = type), note = "conditional: random effects used, zero for levels not in the data")
  if (!is(m, "lmerMod")) z$type <- type
  list(prediction = z) }

## Likelihood-ratio test of two or more nested fits
lrt <- function(name, data, ..., note = "") {
  if (!wanted(name)) return(invisible())
  GLMC <<- GLMC0; d <<- load_data(data); fits <- lapply(eval(substitute(alist(...))), eval, envir = globalenv())
  ll <- sapply(fits, function(m) as.numeric(logLik(m))); df <- sapply(fits, function(m) attr(logLik(m), "df"))
  chi <- 2 * diff(ll); dd <- diff(df)
  save_json(list(name = name, dataset = data, kind = "lrt", note = note, R = R.version.string,
    models = lapply(seq_along(fits), function(i) list(formula = paste(deparse(formula(fits[[i]]), width.cutoff = 500), collapse = " "), family = family(fits[[i]])$family, npar = df[i], loglik = ll[i], AIC = AIC(fits[[i]]), BIC = BIC(fits[[i]]))),
    chisq = I(chi), df = I(dd), p = I(pchisq(chi, dd, lower.tail = FALSE))), name)
  cat(sprintf("%-34s chisq %s\n", name, paste(format(chi), collapse = " "))); invisible() }

## ---------------------------------------------------------------- linear mixed models (lme4)
A <- list(satt = TRUE, kr = TRUE, anova3 = TRUE)
lmm <- function(name, data, fit, ...) do.call(case, c(list(name, data, fit), modifyList(A, list(...))), quote = TRUE)

newdat <- data.frame(Subject = c("308", "309", "372", "999", "308"), Days = c(0, 4.5, 12, 3, 20))
lmm("sleepstudy_intercept_reml", "sleepstudy", quote(lmer(Reaction ~ Days + (1 | Subject), d, control = LMC)))
lmm("sleepstudy_slope_reml", "sleepstudy", quote(lmer(Reaction ~ Days + (Days | Subject), d, control = LMC)), more = quote(predictions(m, newdat)))
lmm("sleepstudy_slope_ml", "sleepstudy", quote(lmer(Reaction ~ Days + (Days | Subject), d, REML = FALSE, control = LMC)), more = quote(profile_ci(m)))
lmm("sleepstudy_uncorr_reml", "sleepstudy", quote(lmer(Reaction ~ Days + (Days || Subject), d, control = LMC)))
lmm("sleepstudy_weights_reml", "sleepstudy_wo", quote(lmer(Reaction ~ Days + (Days | Subject), d, weights = w, control = LMC)), weights = "w")
lmm("sleepstudy_offset_reml", "sleepstudy_wo", quote(lmer(Reaction ~ Days + (Days | Subject), d, offset = off, control = LMC)), offset = "off")
lmm("dyestuff_reml", "Dyestuff", quote(lmer(Yield ~ 1 + (1 | Batch), d, control = LMC)))
lmm("dyestuff_ml", "Dyestuff", quote(lmer(Yield ~ 1 + (1 | Batch), d, REML = FALSE, control = LMC)))
lmm("dyestuff2_reml", "Dyestuff2", quote(lmer(Yield ~ 1 + (1 | Batch), d, control = LMC)), note = "singular: the batch variance is zero")
lmm("penicillin_reml", "Penicillin", quote(lmer(diameter ~ 1 + (1 | plate) + (1 | sample), d, control = LMC)), more = quote(profile_ci(m)))
lmm("pastes_nested_reml", "Pastes", quote(lmer(strength ~ 1 + (1 | batch/cask), d, control = LMC)))
lmm("machines_nested_reml", "Machines", quote(lmer(score ~ Machine + (1 | Worker/Machine), d, control = LMC)))
lmm("machines_slopes_reml", "Machines", quote(lmer(score ~ Machine + (0 + Machine | Worker), d, control = LMC)))
lmm("orthodont_slope_reml", "Orthodont", quote(lmer(distance ~ age * Sex + (age | Subject), d, control = LMC)))
lmm("dietox_intercept_reml", "dietox", quote(lmer(Weight ~ Time + (1 | Pig), d, control = LMC)), kr = FALSE)
lmm("dietox_slope_reml", "dietox", quote(lmer(Weight ~ Time + (Time | Pig), d, control = LMC)), kr = FALSE)
lmm("dietox_nested_ml", "dietox", quote(lmer(Weight ~ Cu * Time + (1 | Litter) + (1 | Pig), d, REML = FALSE, control = LMC)), kr = FALSE)
lmm("insteval_ml", "InstEval", quote(lmer(y ~ service + (1 | s) + (1 | d) + (1 | dept:service), d, REML = FALSE, control = LMC)), satt = FALSE, kr = FALSE, anova3 = FALSE)
lmm("insteval_reml", "InstEval", quote(lmer(y ~ service + (1 | s) + (1 | d) + (1 | dept:service), d, control = LMC)), kr = FALSE)
lmm("insteval_fixed_ml", "InstEval", quote(lmer(y ~ service * dept + (1 | s) + (1 | d), d, REML = FALSE, control = LMC)), satt = FALSE, kr = FALSE, anova3 = FALSE)

## ---------------------------------------------------------------- generalised (lme4)
cbpp_new <- data.frame(herd = c("1", "7", "99"), period = c("1", "3", "2"))
case("cbpp_laplace", "cbpp", quote(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial, control = GLMC)), cross = TRUE, trials = "size", more = quote(c(profile_ci(m), predictions(m, cbpp_new, "response"))))
case("cbpp_agq9", "cbpp", quote(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial, nAGQ = 9, control = GLMC)), trials = "size")
case("cbpp_agq25", "cbpp", quote(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial, nAGQ = 25, control = GLMC)), trials = "size")
case("cbpp_obs_laplace", "cbpp", quote(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd) + (1 | obs), d, binomial, control = GLMC)), cross = TRUE, trials = "size")
case("cbpp_probit_laplace", "cbpp", quote(glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial("probit"), control = TMBC)), trials = "size", note = "non-canonical link: Laplace with the observed Hessian (lme4 uses the expected one and differs in the 3rd digit or so)")
case("verbagg_laplace", "VerbAgg", quote(glmer(y ~ Anger + Gender + btype + situ + (1 | id) + (1 | item), d, binomial, control = GLMC)), cross = TRUE)
case("grouseticks_laplace", "grouseticks", quote(glmer(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION) + (1 | INDEX), d, poisson, control = GLMC)), cross = TRUE)
case("arabidopsis_laplace", "Arabidopsis", quote(glmer(total_fruits ~ nutrient * amd + rack + status + (1 | reg/popu/gen) + (1 | obs), d, poisson, control = GLMC)), cross = TRUE)
case("ohio_laplace", "ohio", quote(glmer(resp ~ age * smoke + (1 | id), d, binomial, control = GLMC)), cross = TRUE)
case("ohio_agq25", "ohio", quote(glmer(resp ~ age * smoke + (1 | id), d, binomial, nAGQ = 25, control = GLMC)))
case("epil2_poisson_slope", "epil2", quote(glmer(y ~ Base * trt + Age + Visit + (Visit | subject), d, poisson, control = GLMC)), cross = TRUE)

## ---------------------------------------------------------------- glmmTMB
tmb <- function(name, data, fit, ...) case(name, data, fit, ...)
tmb("epil2_nbinom2_slope", "epil2", quote(glmmTMB(y ~ Base * trt + Age + Visit + (Visit | subject), d, nbinom2, control = TMBC)), note = "boundary: slope sd near 0, correlation near -1; compare the log-likelihood, not theta")
tmb("salamanders_poisson", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), d, poisson, control = TMBC)))
tmb("salamanders_nbinom2", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), d, nbinom2, control = TMBC)))
tmb("salamanders_zip", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), ziformula = ~ spp + mined, d, poisson, control = TMBC)))
tmb("salamanders_zinb2", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), ziformula = ~ mined, d, nbinom2, control = TMBC)))
tmb("salamanders_hurdle", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), ziformula = ~ spp + mined, d, truncated_poisson, control = TMBC)))
tmb("salamanders_nbinom2_disp", "Salamanders", quote(glmmTMB(count ~ spp + mined + (1 | site), dispformula = ~ DOY, d, nbinom2, control = TMBC)))
tmb("owls_nbinom1_zi", "Owls", quote(glmmTMB(SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest), ziformula = ~ 1, d, nbinom1, control = TMBC)), offset = "logBroodSize")
tmb("sim_beta", "sim_beta", quote(glmmTMB(y ~ x + trt + (1 | g), d, beta_family(), control = TMBC)), note = "sigma is phi: var = mu (1 - mu) / (1 + phi)")
tmb("sim_gamma", "sim_gamma", quote(glmmTMB(y ~ x + trt + (1 | g), d, Gamma("log"), control = TMBC)), note = "sigma is the coefficient of variation: shape = 1 / sigma^2")
tmb("sim_tweedie", "sim_tweedie", quote(glmmTMB(y ~ x + trt + (1 | g), d, tweedie(), control = TMBC)), note = "var = sigma mu^tweedie_power")
tmb("sim_compois", "sim_compois", quote(glmmTMB(y ~ x + trt + (1 | g), d, compois(), control = TMBC)), note = "mean-parametrised; sigma = 1 / nu")
tmb("sim_genpois", "sim_compois", quote(glmmTMB(y ~ x + trt + (1 | g), d, genpois(), control = TMBC)), note = "var = sigma mu")
tmb("sim_betabinomial", "sim_betabinomial", quote(glmmTMB(cbind(succ, size - succ) ~ x + (1 | g), d, betabinomial(), control = TMBC)), trials = "size")
tmb("sim_nbinom1", "sim_nbinom1", quote(glmmTMB(y ~ x + trt + (1 | g), d, nbinom1, control = TMBC)), note = "var = mu (1 + sigma)")
tmb("sim_ar1", "sim_ar1", quote(glmmTMB(y ~ x + time + ar1(factor(time) + 0 | g), d, control = TMBC)), note = "ar1 over the ordered times 1..8; with residual noise")
tmb("sim_cs", "sim_cs", quote(glmmTMB(y ~ x + cs(cond + 0 | g), d, control = TMBC)), note = "heterogeneous compound symmetry: one sd a condition, one correlation")
tmb("sim_disp", "sim_disp", quote(glmmTMB(y ~ x + trt + (1 | g), dispformula = ~ trt + x, d, control = TMBC)), note = "gaussian: betad is the log of the VARIANCE in glmmTMB 1.1.5")
tmb("orthodont_tmb_reml", "Orthodont", quote(glmmTMB(distance ~ age * Sex + (1 | Subject), dispformula = ~ Sex, d, REML = TRUE, control = TMBC)), note = "equals the varIdent fit of nlme")

## inverse Gaussian, log link: glmmTMB 1.1.5 has no such family, so the marginal likelihood is written
## out here: y ~ IG(mu, phi), var = phi mu^3, mu = exp(x beta + u), u ~ N(0, sd^2), one u a group.
if (wanted("sim_invgauss")) {
  d <- load_data("sim_invgauss"); X <- model.matrix(~ x + trt, d); y <- d$y; g <- as.integer(d$g)
  ld <- function(y, mu, phi) -0.5 * (log(2 * pi * phi) + 3 * log(y) + (y - mu)^2 / (phi * mu^2 * y))
  nll <- function(p, what) {   # p = beta, log phi, log sd
    eta <- drop(X %*% p[1:3]); phi <- exp(p[4]); sd <- exp(p[5])
    -sum(vapply(unique(g), function(i) { yi <- y[g == i]; ei <- eta[g == i]
      l <- function(u) sum(ld(yi, exp(ei + u), phi)) - u^2 / (2 * sd^2) - log(sd) - log(2 * pi) / 2
      d1 <- function(u) { mu <- exp(ei + u); sum((yi - mu) / mu^2) / phi - u / sd^2 }
      d2 <- function(u) { mu <- exp(ei + u); sum(-2 * yi / mu^2 + 1 / mu) / phi - 1 / sd^2 }   # minus the observed information
      u <- uniroot(d1, c(-8, 8), tol = 1e-12)$root; u <- u - d1(u) / d2(u); s <- 1 / sqrt(-d2(u))
      if (what == "laplace") l(u) + log(2 * pi) / 2 + log(s)
      else log(integrate(Vectorize(function(z) exp(l(u + s * z) - l(u))), -12, 12, rel.tol = 1e-11, subdivisions = 500)$value) + log(s) + l(u) }, 0)) }
  one <- function(what) { o <- nlminb(c(0.3, 0.3, 0.2, log(0.3), log(0.4)), nll, what = what, control = list(rel.tol = 1e-13, x.tol = 1e-12))
    V <- solve(numDeriv::hessian(nll, o$par, what = what)); nm <- c("(Intercept)", "x", "trtb", "log_phi", "log_sd")
    list(fixef = nl(setNames(o$par[1:3], nm[1:3])), se = nl(setNames(sqrt(diag(V))[1:3], nm[1:3])), dispersion_phi = exp(o$par[4]), sd = exp(o$par[5]), loglik = -o$objective, npar = 5, par = nl(setNames(o$par, nm)), vcov_par = list(names = nm, matrix = V)) }
  r <- c(list(name = "sim_invgauss", dataset = "sim_invgauss", formula = "y ~ x + trt + (1 | g)", family = "inverse.gaussian", link = "log", method = "Laplace", software = "plain R (this script)", version = R.version.string, nobs = nrow(d), ngroups = list(g = 30), warnings = I(character())), one("laplace"), list(exact = one("exact"), note = "Laplace with the observed Hessian; exact: by numerical integration"))
  r$varcorr <- list(g = list(names = I("(Intercept)"), sd = I(r$sd), corr = matrix(1), cov = matrix(r$sd^2)))
  save_json(r, "sim_invgauss"); cat("sim_invgauss", r$loglik, r$exact$loglik, "\n") }

## exact marginal log-likelihood of cbpp (numerical integration), to settle the constants of Laplace and AGQ
if (wanted("cbpp_exact")) {
  d <- load_data("cbpp"); X <- model.matrix(~ period, d); h <- as.integer(d$herd)
  nll <- function(p) { eta <- drop(X %*% p[1:4]); s <- exp(p[5])
    -sum(vapply(unique(h), function(i) { k <- h == i
      l <- function(u) vapply(u, function(z) sum(dbinom(d$incidence[k], d$size[k], plogis(eta[k] + s * z), log = TRUE)) + dnorm(z, log = TRUE), 0)
      u <- optimize(l, c(-8, 8), maximum = TRUE)$maximum; l0 <- l(u); log(integrate(function(z) exp(l(z) - l0), u - 10, u + 10, rel.tol = 1e-11)$value) + l0 }, 0)) }
  o <- nlminb(c(-1.4, -1, -1.1, -1.6, log(.64)), nll, control = list(rel.tol = 1e-13))
  r <- list(name = "cbpp_exact", dataset = "cbpp", formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)", family = "binomial", link = "logit", method = "exact (numerical integration)", software = "plain R (this script)", version = R.version.string, trials = "size", nobs = 56, fixef = nl(setNames(o$par[1:4], colnames(X))), sd = exp(o$par[5]), loglik = -o$objective, loglik_full = -o$objective, npar = 5, warnings = I(character()))
  save_json(r, "cbpp_exact"); cat("cbpp_exact", r$loglik, r$sd, "\n") }

## ---------------------------------------------------------------- nlme
LC <- lmeControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-10, msTol = 1e-11, niterEM = 50, opt = "nlminb")
case("ovary_lme_ar1", "Ovary", quote(lme(follicles ~ sinT + cosT, data = d, random = list(Mare = pdDiag(~ sinT)), correlation = corAR1(form = ~ obs | Mare), control = LC)), note = "residual AR(1) over obs within Mare; random intercept and sinT slope, uncorrelated")
case("ovary_lme_int_ar1_ml", "Ovary", quote(lme(follicles ~ sinT + cosT, data = d, random = ~ 1 | Mare, correlation = corAR1(form = ~ obs | Mare), method = "ML", control = LC)))
case("orthodont_lme_varident", "Orthodont", quote(lme(distance ~ age * Sex, data = d, random = ~ 1 | Subject, weights = varIdent(form = ~ 1 | Sex), control = LC)), note = "residual sd ratio by Sex in var_struct")
case("orthodont_lme_ar1", "Orthodont", quote(lme(distance ~ age * Sex, data = d, random = ~ 1 | Subject, correlation = corAR1(form = ~ 1 | Subject), control = LC)))

## ---------------------------------------------------------------- likelihood-ratio tests
lrt("lrt_sleepstudy", "sleepstudy", lmer(Reaction ~ Days + (1 | Subject), d, REML = FALSE, control = LMC), lmer(Reaction ~ Days + (Days || Subject), d, REML = FALSE, control = LMC), lmer(Reaction ~ Days + (Days | Subject), d, REML = FALSE, control = LMC), note = "consecutive pairs")
lrt("lrt_pastes", "Pastes", lmer(strength ~ 1 + (1 | sample), d, REML = FALSE, control = LMC), lmer(strength ~ 1 + (1 | batch) + (1 | sample), d, REML = FALSE, control = LMC))
lrt("lrt_cbpp", "cbpp", glmer(cbind(incidence, size - incidence) ~ 1 + (1 | herd), d, binomial, control = GLMC), glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial, control = GLMC), note = "Laplace")
lrt("lrt_salamanders", "Salamanders", glmmTMB(count ~ spp + mined + (1 | site), d, poisson), glmmTMB(count ~ spp + mined + (1 | site), d, nbinom2), note = "Poisson is the limit of nbinom2")
